// The drawing. Boxes are placed when the user asks for it; what comes later finds free places, and moves nothing.
import { BOX, CLOSED, HEAD, arrange } from "./layout.js";
import { label, whole, worst } from "./model.js";
import { element, fitted, shape } from "./text.js";

export const MOST_BOXES = 150;
const OPEN_AT_FIRST = 40;
const HUB = 8;
const MOST_HUBS = 9;
const MOST_LINES = 200;
// How small it is made to fit: more is scrolled, and first of all downwards, as letters have to be read.
const LEAST = 0.55;
const LEAST_BY_HEIGHT = 0.85;
const RANK = { ok: 0, failed: 1, dropped: 2 };

export class Drawing {
  open = new Set();
  places = new Map();
  hubs = new Map();
  used = new Set();
  users = new Set();
  chosen = null;
  scale = 0;

  constructor(canvas, tell) {
    this.tell = tell;
    this.canvas = canvas;
    this.back = shape("g");
    this.lines = shape("g");
    this.front = shape("g");
    this.heads = shape("g", { class: "heads", "aria-hidden": "true" }); // before lines, which would strike them through
    const arrow = (kind) =>
      shape("marker", { id: `head-${kind}`, class: `head ${kind}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" },
        shape("path", { d: "M0 0L8 4L0 8z" }));
    this.svg = shape("svg", { role: "group", "aria-label": "Map of who talks to whom" },
      shape("defs", {}, ...Object.keys(RANK).map(arrow)), this.back, this.lines, this.heads, this.front);
    canvas.append(this.svg);
    this.drawn = new Map();
  }

  // Place all boxes anew, for these edges.
  arrange(edges) {
    const groups = largest(grouped(edges));
    if (!this.placed) this.openFirst(groups);
    this.placed = true;
    const left = this.choose(groups);
    const links = edges.map(({ from, to }) => [from.id, to.id]);
    const both = ([from, to]) => from !== to && groups.has(from) && groups.has(to);
    const groupLinks = edges.map(({ from, to }) => [from.group, to.group]).filter(both);
    const wanted = new Map([...groups].map(([name, spots]) => [`g:${name}`, { open: left.has(name), items: left.get(name) ?? new Set() }]));
    this.places = arrange(wanted, links, distinct(groupLinks).map((pair) => pair.map((name) => `g:${name}`)), this.width());
    this.findHubs(edges);
    this.update(edges);
    this.size();
  }

  width() {
    return Math.max(560, this.canvas.clientWidth * 1.1 - 16);
  }

  openFirst(groups) {
    const all = [...groups.values()].reduce((sum, spots) => sum + spots.size, 0);
    if (all <= OPEN_AT_FIRST) this.open = new Set(groups.keys());
  }

  // Which spots of open groups are drawn: those with the most connections, as long as there is room for boxes.
  choose(groups) {
    const left = new Map();
    let room = MOST_BOXES - groups.size;
    for (const [name, spots] of groups) {
      if (!this.open.has(name)) continue;
      const most = [...spots].sort(([, a], [, b]) => b - a).slice(0, Math.max(room, 0));
      if (!most.length) continue;
      room -= most.length;
      left.set(name, new Set(most.map(([id]) => id).sort((a, b) => a - b)));
    }
    return left;
  }

  // Hubs are used by many, as DNS, or use many, as Prometheus: their lines would hide all others.
  findHubs(edges) {
    const sources = new Map();
    const targets = new Map();
    for (const { from, to } of edges) {
      const [start, stop] = [this.boxOf(from), this.boxOf(to)];
      if (start === stop || start === null || stop === null) continue;
      sources.set(stop, (sources.get(stop) ?? new Set()).add(start));
      targets.set(start, (targets.get(start) ?? new Set()).add(stop));
    }
    const most = [...[...sources].map((each) => [...each, true]), ...[...targets].map((each) => [...each, false])]
      .filter(([, others]) => others.size >= HUB)
      .sort(([, a], [, b]) => b.size - a.size)
      .slice(0, MOST_HUBS);
    this.hubs = new Map([...new Set(most.map(([box]) => box))].map((box, at) => [box, at + 1]));
    const boxes = (used) => new Set(most.filter(([, , isUsed]) => isUsed === used).map(([box]) => box));
    [this.used, this.users] = [boxes(true), boxes(false)];
    for (const [key, made] of this.drawn) {
      if (!made.link) continue;
      made.remove();
      this.drawn.delete(key);
    }
  }

  boxOf(spot) {
    if (this.places.has(spot.id)) return spot.id;
    return this.places.has(`g:${spot.group}`) ? `g:${spot.group}` : null;
  }

  // Bring all that is drawn up to date; what stands stays where it is.
  update(edges) {
    const groups = grouped(edges);
    for (const [name, spots] of groups) this.admit(name, spots);
    const seen = new Set();
    const links = new Map();
    const within = new Map();
    const marks = new Map();
    const state = new Map();
    const spots = new Map();
    for (const edge of edges) {
      const [start, stop] = [this.boxOf(edge.from), this.boxOf(edge.to)];
      spots.set(edge.from.id, edge.from).set(edge.to.id, edge.to);
      const kind = worst(edge.total);
      if (start === null || stop === null) continue;
      for (const box of [start, stop]) if (RANK[kind] >= RANK[state.get(box) ?? "ok"]) state.set(box, kind);
      if (start === stop) {
        within.set(start, (within.get(start) ?? 0) + edge.total.connections);
        continue;
      }
      const key = `${start} ${stop}`;
      const link = links.get(key) ?? { start, stop, edges: [], connections: 0, kind: "ok" };
      link.edges.push(edge);
      link.connections += edge.total.connections;
      if (RANK[kind] > RANK[link.kind]) link.kind = kind;
      links.set(key, link);
    }
    const touched = (link) => this.chosen !== null && (link.start === this.chosen || link.stop === this.chosen);
    this.leftOut = 0;
    let room = MOST_LINES - [...links.keys()].filter((key) => this.drawn.has(key)).length;
    for (const [key, link] of [...links].sort(([, a], [, b]) => b.connections - a.connections)) {
      const hub = this.used.has(link.stop) ? link.stop : this.users.has(link.start) ? link.start : null;
      if (hub !== null && !touched(link)) {
        const other = hub === link.stop ? link.start : link.stop;
        marks.set(other, [...(marks.get(other) ?? []), [this.hubs.get(hub), link]]);
        continue;
      }
      if (!this.drawn.has(key) && !touched(link) && room-- <= 0) {
        this.leftOut++;
        continue;
      }
      this.line(key, link, touched(link));
      seen.add(key);
    }
    const heads = [];
    const near = new Set([this.chosen]);
    for (const link of links.values()) if (touched(link)) near.add(link.start).add(link.stop);
    for (const [name, members] of groups) {
      const key = `g:${name}`;
      if (!this.places.has(key)) continue;
      const drawn = [...members.keys()].filter((id) => this.places.has(id)).length;
      const alerts = [...members.keys()].reduce((sum, id) => sum + (this.places.has(id) ? 0 : spots.get(id).alerts), 0);
      heads.push(...this.group(key, name, { count: members.size, drawn, alerts }, state.get(key), marks.get(key), near));
      seen.add(key);
    }
    refill(this.heads, heads);
    for (const [id, spot] of spots) {
      if (!this.places.has(id)) continue;
      this.box(id, spot, state.get(id), marks.get(id), within.get(id), near);
      seen.add(id);
    }
    for (const [key, made] of this.drawn) {
      if (seen.has(key)) continue;
      made.remove();
      this.drawn.delete(key);
    }
    this.svg.classList.toggle("on", this.chosen !== null);
    this.links = links;
    return { spots: spots.size, drawn: [...spots.keys()].filter((id) => this.places.has(id)).length };
  }

  // Places for what is new: free ones of its group; a new group stands below all others.
  admit(name, spots) {
    const key = `g:${name}`;
    if (!this.places.has(key)) {
      if (this.places.size >= MOST_BOXES) return;
      const bottom = Math.max(0, ...[...this.places.values()].map(({ top, height }) => top + height));
      this.places.set(key, { left: 14, top: bottom + 28, ...CLOSED, free: [] });
      this.size(this.now);
    }
    const group = this.places.get(key);
    for (const id of spots.keys()) {
      if (this.places.has(id) || !group.free.length || !this.open.has(name) || this.places.size >= MOST_BOXES) continue;
      this.places.set(id, group.free.shift());
    }
  }

  line(key, link, lit) {
    const from = this.places.get(link.start);
    const to = this.places.get(link.stop);
    const what = link.edges.length === 1 ? label(link.edges[0]) : `${link.edges.length} pairs, ${link.connections.toLocaleString("en")} connections`;
    const made = this.keep(key, () => {
      const group = shape("g", { class: "line" }, shape("title"), shape("path", { class: "hit" }), shape("path", { class: "stroke" }));
      group.addEventListener("click", (event) => {
        event.stopPropagation();
        this.tell.line(group.link);
      });
      this.lines.append(group);
      return group;
    });
    made.link = link;
    made.setAttribute("class", `line ${link.kind}${lit ? " lit" : ""}`);
    const [title, hit, stroke] = made.children;
    title.textContent = what;
    const path = curve(from, to, link.edges[0].from.group === link.edges[0].to.group);
    hit.setAttribute("d", path);
    stroke.setAttribute("d", path);
    stroke.setAttribute("marker-end", `url(#head-${link.kind})`);
    stroke.setAttribute("stroke-width", (1 + Math.min(Math.log10(link.connections + 1), 5) * 0.4).toFixed(2));
  }

  // What stands in front of the lines is given back.
  group(key, name, { count, drawn, alerts }, kind, marks, near) {
    const place = this.places.get(key);
    const isOpen = drawn > 0;
    const shown = name || "no namespace";
    const made = this.keep(key, () => this.made(key, "space", () => this.tell.toggle(name)));
    if (made.open !== isOpen) {
      made.open = isOpen;
      (isOpen ? this.back : this.front).append(made);
    }
    const hub = this.hubs.get(key);
    const more = isOpen && drawn < count ? `, ${count - drawn} not drawn` : "";
    const says = [`${count} in it${more}`, isOpen ? "" : bad(kind), hub ? `hub ${hub}` : "", alerted(alerts)].filter(Boolean).join("; ");
    const text = (x, y, kind, told) => shape("text", { x: place.left + x, y: place.top + y, class: kind }, told);
    const room = place.width - 40 - (more ? 90 : 0);
    const head = [text(12, isOpen ? 17 : 24, "title", `${isOpen ? "▾" : "▸"} ${fitted(shown, room, 600)}`)];
    if (!isOpen) head.push(text(12, 44, "small", `${count} ${count === 1 ? "box" : "boxes"}`));
    else if (more) head.push(text(place.width - 12, 17, "small end", `+${count - drawn} not drawn`));
    const parts = [
      shape("title", {}, `${shown}: ${says}`),
      shape("rect", { x: place.left, y: place.top, width: place.width, height: place.height, rx: 8 }),
      ...(isOpen ? [] : head),
    ];
    if (hub) parts.push(...mark(place.left, place.top, hub, "hub"));
    if (alerts) parts.push(...mark(place.left + place.width, place.top, "!", "alert"));
    if (!isOpen) parts.push(...row(place, marks));
    refill(made, parts);
    made.setAttribute("class", `space ${isOpen ? "open" : "closed"} ${isOpen ? "ok" : kind ?? "ok"}${near.has(key) ? " lit" : ""}`);
    made.setAttribute("aria-expanded", String(isOpen));
    made.setAttribute("aria-label", `${shown}: ${says}`);
    return isOpen ? head : [];
  }

  box(id, spot, kind = "ok", marks = [], within = 0, near) {
    const place = this.places.get(id);
    const hub = this.hubs.get(id);
    const made = this.keep(id, () => {
      const group = this.made(id, "spot", () => this.tell.spot(this.chosen === id ? null : id));
      this.front.append(group);
      return group;
    });
    const says = [whole(spot), bad(kind), hub ? `hub ${hub}` : "", alerted(spot.alerts), within ? `${within.toLocaleString("en")} with itself` : ""];
    refill(made, [
      shape("title", {}, says.filter(Boolean).join("; ")),
      shape("rect", { x: place.left, y: place.top, width: place.width, height: place.height, rx: 5 }),
      shape("text", { x: place.left + 10, y: place.top + 21.5 }, fitted(spot.name, place.width - 20)),
      ...(hub ? mark(place.left, place.top, hub, "hub") : []),
      ...(spot.alerts ? mark(place.left + place.width, place.top, "!", "alert") : []),
      ...row(place, marks),
    ]);
    made.setAttribute("class", `spot ${kind} ${spot.kind}${near.has(id) ? " lit" : ""}${this.chosen === id ? " chosen" : ""}`);
    made.setAttribute("aria-pressed", String(this.chosen === id));
    made.setAttribute("aria-label", says.filter(Boolean).join("; "));
  }

  made(key, kind, act) {
    const group = shape("g", { class: kind, tabindex: 0, role: "button", "data-box": key });
    group.addEventListener("click", (event) => {
      event.stopPropagation();
      act();
    });
    group.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      act();
    });
    return group;
  }

  keep(key, make) {
    if (!this.drawn.has(key)) this.drawn.set(key, make());
    return this.drawn.get(key);
  }

  // How large it is drawn: as it fits, unless the user has chosen, or a scale is given.
  size(given = this.scale) {
    const all = [...this.places.values()];
    const across = Math.max(200, ...all.map(({ left, width }) => left + width)) + 16;
    const down = Math.max(80, ...all.map(({ top, height }) => top + height)) + 16;
    const [wide, high] = [this.canvas.clientWidth / across, this.canvas.clientHeight / down];
    const size = Math.min(1, Math.max(LEAST, Math.min(wide, Math.max(high, LEAST_BY_HEIGHT))));
    this.now = given || size;
    this.svg.setAttribute("viewBox", `0 0 ${across} ${down}`);
    this.svg.setAttribute("width", Math.round(across * this.now));
    this.svg.setAttribute("height", Math.round(down * this.now));
  }

  zoom(by) {
    this.scale = by ? Math.min(2, Math.max(0.3, this.now * by)) : 0;
    this.size();
  }
}

function grouped(edges) {
  const groups = new Map();
  for (const { from, to, total } of edges) {
    for (const spot of from === to ? [from] : [from, to]) {
      if (!groups.has(spot.group)) groups.set(spot.group, new Map());
      const group = groups.get(spot.group);
      group.set(spot.id, (group.get(spot.id) ?? 0) + total.connections);
    }
  }
  return new Map([...groups].sort(([a], [b]) => (a < b ? -1 : 1)));
}

// As many groups as there may be boxes: those with the most connections.
function largest(groups) {
  const sum = (spots) => [...spots.values()].reduce((total, each) => total + each, 0);
  if (groups.size <= MOST_BOXES) return groups;
  const kept = new Set([...groups].sort(([, a], [, b]) => sum(b) - sum(a)).slice(0, MOST_BOXES).map(([name]) => name));
  return new Map([...groups].filter(([name]) => kept.has(name)));
}

function distinct(pairs) {
  return [...new Map(pairs.map((pair) => [pair.join("\u0000"), pair])).values()];
}

function bad(kind = "ok") {
  return kind === "ok" ? "" : `some ${kind}`;
}

function alerted(count) {
  return count ? `${count.toLocaleString("en")} ${count === 1 ? "alert" : "alerts"}` : "";
}

function row(place, marks = []) {
  return marks
    .sort(([a], [b]) => a - b)
    .slice(0, 6)
    .flatMap(([hub, link], at) => mark(place.left + place.width - 10 - at * 15, place.top + place.height, hub, link.kind, label(link.edges[0])));
}

function mark(x, y, text, kind, title = "") {
  return [
    shape("g", { class: `mark ${kind}` }, ...(title ? [shape("title", {}, title)] : []),
      shape("circle", { cx: x, cy: y, r: 7.5 }), shape("text", { x, y: y + 3.3 }, String(text))),
  ];
}

function refill(made, parts) {
  const text = parts.map((part) => part.outerHTML).join("");
  if (made.told === text) return;
  made.told = text;
  made.replaceChildren(...parts);
}

// From the side of one box that faces the other to the side that faces it: below, above, or beside it.
function curve(from, to, within) {
  const [x, end] = [from.left + from.width / 2, to.left + to.width / 2];
  const apart = within ? Infinity : 20;
  if (to.top >= from.top + from.height + apart) return upright(x, from.top + from.height, end, to.top - 2);
  if (to.top + to.height + apart <= from.top) return upright(x, from.top, end, to.top + to.height + 2);
  const [y, stop] = [middle(from), middle(to)];
  const right = from.left + from.width;
  if (to.left >= right) return lying(right, y, to.left - 2, stop);
  if (to.left + to.width <= from.left) return lying(from.left, y, to.left + to.width + 2, stop);
  const out = Math.max(right, to.left + to.width) + 34;
  return `M${right} ${y}C${out} ${y} ${out} ${stop} ${to.left + to.width + 2} ${stop}`;
}

function upright(x, y, end, stop) {
  const swing = (stop - y) / 2;
  return `M${x} ${y}C${x} ${y + swing} ${end} ${stop - swing} ${end} ${stop}`;
}

function lying(x, y, end, stop) {
  const swing = (end - x) / 2;
  return `M${x} ${y}C${x + swing} ${y} ${end - swing} ${stop} ${end} ${stop}`;
}

function middle({ top, height }) {
  return height > 2 * CLOSED.height ? top + HEAD / 2 : top + height / 2;
}
