// What the theme leaves unnamed for screen readers: the toggles of the table of contents, and lists that hold more than their items.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("nav summary").forEach((summary) => {
    const chapter = summary.closest("li")?.querySelector("a")?.textContent.trim();
    summary.setAttribute("aria-label", "sections of " + (chapter || "this chapter"));
  });
  document.querySelectorAll(".citation-list, .citation-list [role=listitem]").forEach((part) => part.removeAttribute("role"));
});
