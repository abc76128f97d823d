// The table: every edge. Only the rows that can be seen are elements, so that 20,000 cost no more than 40.
import { label, whole } from "./model.js";
import { amount, clock, element, took } from "./text.js";

const HEIGHT = 27;
const SPARE = 8;
const number = (value) => (value === null ? "" : value.toLocaleString("en"));

export const COLUMNS = [
  { name: "From", of: (edge) => whole(edge.from), kind: "name" },
  { name: "To", of: (edge) => whole(edge.to), kind: "name" },
  { name: "Ports", of: (edge) => edge.ports.join(", ") },
  { name: "Connects", of: (edge) => edge.total.connections, show: number },
  { name: "Failed", of: (edge) => edge.total.failed, show: (value) => (value ? number(value) : ""), kind: "failed" },
  { name: "Dropped", of: (edge) => edge.total.dropped, show: (value) => (value ? number(value) : ""), kind: "dropped" },
  { name: "Sent", of: (edge) => edge.total.sent, show: (value) => (value === null ? "" : `${amount(value)}`) },
  { name: "Received", of: (edge) => edge.total.received, show: (value) => (value === null ? "" : `${amount(value)}`) },
  { name: "RTT p50", of: (edge) => edge.total.rtt, show: took },
  { name: "RTT p99", of: (edge) => edge.total.rtt99, show: took },
  { name: "Last seen", of: (edge) => edge.total.last, show: clock },
  { name: "Policies", of: (edge) => edge.opinion?.verdict ?? "", kind: "opinion" },
];

export class Table {
  sorted = COLUMNS[3];
  down = true;
  edges = [];
  active = 0;

  constructor(table, scroll, act) {
    [this.table, this.scroll, this.act] = [table, scroll, act];
    this.head = table.tHead;
    this.body = table.tBodies[0];
    this.rows = new Map();
    this.above = element("tr", { "aria-hidden": "true", class: "space" }, element("td", { colspan: COLUMNS.length }));
    this.below = this.above.cloneNode(true);
    this.head.append(element("tr", {}, ...COLUMNS.map((column) => this.heading(column))));
    scroll.addEventListener("scroll", () => this.show());
    this.body.addEventListener("click", (event) => this.pick(event.target.closest("tr")));
    this.body.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("focusin", (event) => {
      const row = event.target.closest("tr");
      if (row?.at !== undefined) this.active = row.at;
    });
  }

  heading(column) {
    const button = element("button", { type: "button" }, column.name);
    button.addEventListener("click", () => this.sort(column));
    column.head = element("th", { scope: "col", class: column.show ? "number" : (column.kind ?? "") }, button);
    return column.head;
  }

  // Whether there is something in the policies' column.
  judged(yes) {
    this.table.classList.toggle("judged", yes);
  }

  sort(column) {
    this.down = column === this.sorted ? !this.down : Boolean(column.show);
    this.sorted = column;
    this.order();
    this.scroll.scrollTop = 0;
    this.show();
  }

  // New sums. Who reads in the table keeps the order; else it is sorted anew.
  set(edges, keepOrder) {
    const known = new Map(this.edges.map((edge, at) => [edge, at]));
    this.edges = edges;
    if (keepOrder && this.busy()) {
      this.edges.sort((a, b) => (known.get(a) ?? Infinity) - (known.get(b) ?? Infinity) || 0);
    } else this.order();
    this.show();
  }

  busy() {
    return this.body.matches(":hover") || this.body.contains(document.activeElement);
  }

  order() {
    const { of } = this.sorted;
    const key = new Map(this.edges.map((edge) => [edge, of(edge)]));
    const sign = this.down ? -1 : 1;
    this.edges.sort((a, b) => {
      const [x, y] = [key.get(a), key.get(b)];
      if (x === y) return a.id - b.id;
      if (x === null || y === null) return x === null ? 1 : -1;
      return x < y ? -sign : sign;
    });
    for (const column of COLUMNS) {
      if (column === this.sorted) column.head.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else column.head.removeAttribute("aria-sort");
    }
  }

  show() {
    const first = Math.max(0, Math.floor(this.scroll.scrollTop / HEIGHT) - SPARE);
    const last = Math.min(this.edges.length, Math.ceil((this.scroll.scrollTop + this.scroll.clientHeight) / HEIGHT) + SPARE);
    this.table.setAttribute("aria-rowcount", this.edges.length + 1);
    this.above.firstChild.style.height = `${first * HEIGHT}px`;
    this.below.firstChild.style.height = `${(this.edges.length - last) * HEIGHT}px`;
    const wanted = [];
    const rows = new Map();
    for (let at = first; at < last; at++) {
      const edge = this.edges[at];
      const row = this.rows.get(edge.id) ?? element("tr", { tabindex: -1 }, ...COLUMNS.map(({ show, kind }) => element("td", { class: `${show ? "number " : ""}${kind ?? ""}` })));
      row.at = at;
      row.edge = edge;
      row.tabIndex = at === Math.min(Math.max(this.active, first), last - 1) ? 0 : -1;
      row.setAttribute("aria-rowindex", at + 2);
      row.setAttribute("aria-label", label(edge));
      row.classList.toggle("chosen", edge.id === this.chosen);
      COLUMNS.forEach(({ of, show }, column) => {
        const value = of(edge);
        const text = show ? show(value) : value;
        const cell = row.cells[column];
        if (cell.textContent === text) return;
        cell.textContent = text;
        if (!show) cell.title = text;
      });
      rows.set(edge.id, row);
      wanted.push(row);
    }
    this.rows = rows;
    this.place([this.above, ...wanted, this.below]);
  }

  // Put rows in order with as few moves as it takes: one that has the focus would lose it.
  place(wanted) {
    const keep = new Set(wanted);
    for (const row of [...this.body.children]) if (!keep.has(row)) row.remove();
    wanted.forEach((row, at) => {
      if (this.body.children[at] !== row) this.body.insertBefore(row, this.body.children[at] ?? null);
    });
  }

  pick(row) {
    if (row?.edge) this.act(row.edge);
  }

  key(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 20, PageUp: -20, Home: -Infinity, End: Infinity };
    if (event.key === "Enter") this.pick(event.target.closest("tr"));
    else if (event.key in steps) this.move(Math.min(Math.max(this.active + steps[event.key], 0), this.edges.length - 1));
    else return;
    event.preventDefault();
  }

  move(at) {
    this.active = at;
    const top = at * HEIGHT;
    const room = this.scroll.clientHeight - this.head.offsetHeight;
    if (top < this.scroll.scrollTop) this.scroll.scrollTop = top;
    else if (top + HEIGHT > this.scroll.scrollTop + room) this.scroll.scrollTop = top + HEIGHT - room;
    this.show();
    this.rows.get(this.edges[at]?.id)?.focus({ preventScroll: true });
  }
}
