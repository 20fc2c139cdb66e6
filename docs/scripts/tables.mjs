// On a phone a table of three columns or more is a list of cards, one for each row (site.css): its cells
// get the names of their columns, and roles, because a table that is drawn otherwise loses its own.

const ROLES = { table: "table", thead: "rowgroup", tbody: "rowgroup", tr: "row", th: "columnheader", td: "cell" };

document$.subscribe(() => {
  for (const table of document.querySelectorAll("article table:not([class])")) {
    const names = [...table.tHead?.rows[0].cells ?? []].map((head) => head.textContent);
    if (names.length < 3 || table.closest(".explorable")) continue;
    table.dataset.cards = "";
    for (const part of [table, ...table.querySelectorAll(Object.keys(ROLES))]) {
      part.role = ROLES[part.localName];
    }
    for (const { cells } of table.tBodies[0].rows) {
      for (const cell of [...cells].slice(1)) cell.dataset.column = names[cell.cellIndex];
    }
  }
});
