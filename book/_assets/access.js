// What the theme, docutils and pandas leave to be mended for readers who listen to a page, and for paper.
addEventListener("DOMContentLoaded", () => {
  // The book's name stands outside of all landmarks.
  const name = document.querySelector(".sidebar-primary-items__start > .sidebar-primary-item");
  name?.setAttribute("role", "navigation");
  name?.setAttribute("aria-label", "First page");
  // Roles that a bibliography's entries may not have.
  document.querySelectorAll(".citation-list, .citation-list > .citation").forEach((part) => part.removeAttribute("role"));
  // The empty corners of a table head nothing.
  for (const corner of document.querySelectorAll("th")) {
    if (corner.textContent.trim()) continue;
    const cell = document.createElement("td");
    for (const { name, value } of corner.attributes) cell.setAttribute(name, value);
    corner.replaceWith(cell);
  }
});

// The keyboard reaches boxes that scroll, and the theme looks for them at each change of size: pictures come later.
addEventListener("load", () => dispatchEvent(new Event("resize")));

// Ink on white paper, whatever the screen shows.
addEventListener("beforeprint", () => {
  const { dataset } = document.documentElement;
  dataset.shown = dataset.theme;
  dataset.theme = "light";
});
addEventListener("afterprint", () => {
  const { dataset } = document.documentElement;
  dataset.theme = dataset.shown;
});
