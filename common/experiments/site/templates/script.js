"use strict";
// Filter, sort and cell dialogs. Without scripts every page reads the same, with longer ways.

const sortKey = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.sort ?? cell.textContent.trim();
  const number = text === "" ? NaN : Number(text);
  return Number.isNaN(number) ? text : number;
};

const compare = (a, b) => {
  const missing = (value) => value === "" || value === "—";
  if (missing(a) || missing(b)) return missing(a) - missing(b); // without a value last, in either direction
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b));
};

const unmark = (headers) => [...headers].forEach((header) => header.removeAttribute("aria-sort"));

const sort = (table, column, falling) => {
  const headers = table.tHead.rows[0].cells;
  unmark(headers);
  headers[column].setAttribute("aria-sort", falling ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows].map((row) => [sortKey(row, column), row]);
  rows.sort(([a], [b]) => {
    const order = compare(a, b);
    const last = [a, b].some((value) => value === "" || value === "—");
    return falling && !last ? -order : order;
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
};

for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(table, column, header.getAttribute("aria-sort") === "ascending"));
  });
}

const form = document.querySelector("form.filter");
if (form) {
  const rows = [...document.querySelectorAll("table.papers tbody tr")];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase() + " " + row.id]));
  const output = form.querySelector("output");
  const apply = () => {
    const words = form.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = ["group", "state", "verdict"].map((name) => [name, form.elements[name].value]).filter(([, v]) => v);
    let shown = 0;
    for (const row of rows) {
      const fits = words.every((word) => texts.get(row).includes(word)) &&
        chosen.every(([name, value]) => row.dataset[name].split("|").includes(value));
      row.hidden = !fits;
      shown += fits;
    }
    output.value = `${shown} of ${rows.length} papers`;
    const query = new URLSearchParams(chosen);
    if (words.length) query.set("q", form.elements.q.value);
    history.replaceState(null, "", query.size ? `#?${query}` : location.pathname);
  };
  const asked = new URLSearchParams(location.hash.startsWith("#?") ? location.hash.slice(2) : "");
  for (const [name, value] of asked) if (form.elements[name]) form.elements[name].value = value;
  form.hidden = false;
  const order = () => { // narrow windows show no headers to click
    const [column, way] = form.elements.sort.value.split(" ");
    const table = document.querySelector("table.papers");
    unmark(table.tHead.rows[0].cells);
    if (column) sort(table, Number(column), way === "falling");
    else table.tBodies[0].append(...rows);
  };
  form.elements.sort.addEventListener("input", order);
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.querySelector("[type=reset]").addEventListener("click", (event) => {
    event.preventDefault(); // a reset of its own would come after this
    form.reset();
    apply();
    order();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, select, textarea")) {
      event.preventDefault();
      form.elements.q.focus();
    }
  });
  apply();
}

const dialog = document.querySelector("dialog");
if (dialog) {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.cell");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const source = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    if (!source) return;
    event.preventDefault();
    dialog.querySelector("h2").textContent = source.querySelector("summary").textContent;
    const place = dialog.querySelector("p a");
    place.href = link.hash;
    place.onclick = () => dialog.close();
    const body = source.querySelector(".body").cloneNode(true);
    const shared = source.closest("section").querySelector("details.shared").cloneNode(true);
    shared.removeAttribute("id");
    body.querySelector("a.shared").closest("p").replaceWith(shared); // here is what the link leads to
    dialog.querySelector(".body").replaceChildren(body);
    dialog.showModal();
    dialog.scrollTop = 0;
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
}

const open = () => {
  const id = decodeURIComponent(location.hash.slice(1));
  const target = id && document.getElementById(id);
  for (let place = target; place; place = place.parentElement) if (place.tagName === "DETAILS") place.open = true;
  if (target && target.tagName === "DETAILS") target.scrollIntoView();
};
addEventListener("hashchange", open);
open();
