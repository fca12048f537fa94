// What the theme leaves unnamed for screen readers: the toggles of the table of contents, and lists that hold more than their items.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("nav summary").forEach((summary) => {
    const chapter = summary.closest("li")?.querySelector("a")?.textContent.trim();
    summary.setAttribute("aria-label", "sections of " + (chapter || "this chapter"));
  });
  document.querySelectorAll(".citation-list, .citation-list [role=listitem]").forEach((part) => part.removeAttribute("role"));
});

// What is wider than its frame (formulas, tables, code) scrolls there, and fades at the edge while more is to come.
const mayBeWider = "mjx-container, span.math, .output.text_html, .pst-scrollable-table-container, .highlight pre";
const fade = (part) => part.classList.toggle("more", part.scrollWidth - part.clientWidth - part.scrollLeft > 8);
const measure = () => document.querySelectorAll("article :is(" + mayBeWider + ")").forEach((part) => {
  if (part.clientWidth === 0 || part.querySelector("[data-explorer]")) return;
  fade(part);
  if (!part.classList.contains("more") || part.classList.contains("scrolls")) return;
  part.classList.add("scrolls");
  part.tabIndex = 0;
  part.addEventListener("scroll", () => fade(part), { passive: true });
});
addEventListener("load", () => {
  measure();
  window.MathJax?.startup?.promise?.then(measure);
});
addEventListener("resize", measure);
