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
  // The name of a column may break after an underscore.
  for (const head of document.querySelectorAll(".cell_output thead th")) {
    if (head.children.length || !head.textContent.includes("_")) continue;
    head.replaceChildren(...head.textContent.split(/(?<=_)/).flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part])));
  }
});

// The keyboard reaches boxes that scroll. The theme knows those of text and tables; these are pictures, loaded later.
addEventListener("load", () => {
  for (const box of document.querySelectorAll(".cell_output:has(> img)")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});

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
