// Arrows and the space bar go from slide to slide; scrolling does too.
const all = [...document.querySelectorAll("section")];
addEventListener("keydown", (e) => {
  const by = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1 }[e.key];
  if (!by || ["SUMMARY", "A"].includes(e.target.tagName)) return;
  const here = all.findIndex((s) => s.getBoundingClientRect().bottom > innerHeight / 2);
  (all[here + by] || all[here]).scrollIntoView();
  e.preventDefault();
});
