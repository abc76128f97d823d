// Brings the parts of the page together.
import { Drawer } from "./drawer.js";
import { reader } from "./filter.js";
import { Drawing } from "./map.js";
import { Model, whole } from "./model.js";
import { Policies } from "./policies.js";
import { save } from "./save.js";
import { Table } from "./table.js";

const find = (id) => document.getElementById(id);
const { live, messages, empty, policies: judged, labels, grammar } = JSON.parse(find("data").textContent);
const model = new Model();
const drawing = new Drawing(find("canvas"), { toggle, spot: choose, line });
const table = new Table(find("table"), find("scroll"), show);
const drawer = new Drawer(find("drawer"), live);
const policies = new Policies(find("policies"), () => {
  table.judged(true);
  refresh();
});
const read = reader(grammar, {
  ...(labels ? {} : { label: "who these are a cluster tells: name pods" }),
  ...(judged ? {} : { policy: "nothing judges here: a cluster's policies do, or --policy FILE" }),
});
let keep = () => true;
let pair = null; // the edges of a line that stands for several
let isWaiting = false;
let connected = true; // until it is known to be otherwise

function chosen() {
  return [...model.seen(keep)];
}

// What the user asked for: boxes are placed anew.
function anew() {
  drawing.chosen = pair = null;
  drawing.arrange(chosen());
  refresh(false);
}

function refresh(keepOrder = true) {
  isWaiting = false;
  policies.opinions(model.seen());
  const edges = chosen();
  if (!drawing.placed && edges.length) drawing.arrange(edges);
  const count = drawing.update(edges);
  const listed = pair ? edges.filter((edge) => pair.has(edge)) : drawing.chosen === null ? edges : edges.filter(({ from, to }) => [drawing.boxOf(from), drawing.boxOf(to)].includes(drawing.chosen));
  table.set([...listed], keepOrder);
  drawer.refresh();
  tell(edges, listed, count);
}

function tell(edges, listed, count) {
  const all = model.edges.size;
  const sum = edges.reduce((total, edge) => total + edge.total.connections, 0);
  const parts = [`${count.spots.toLocaleString("en")} boxes, ${edges.length.toLocaleString("en")} pairs, ${sum.toLocaleString("en")} connections`, model.state.told ?? ""];
  if (live && !connected) parts.push("the command has ended, or does not answer");
  find("status").textContent = parts.filter(Boolean).join(" · ");
  find("status").classList.toggle("bad", live && !connected);
  const hidden = count.spots - count.drawn;
  const hubs = drawing.hubs.size ? "Numbered boxes are hubs: whoever talks with one has its number instead of a line." : "";
  const left = drawing.leftOut ? ` ${drawing.leftOut.toLocaleString("en")} lines of few connections are not drawn: choose a box to see its own.` : "";
  find("omitted").textContent = hubs + left;
  find("sum").textContent = listed.length < edges.length ? `${listed.length.toLocaleString("en")} of ${edges.length.toLocaleString("en")} pairs; Escape shows all.`
    : `${edges.length.toLocaleString("en")} pairs${hidden ? `; ${hidden.toLocaleString("en")} boxes are in closed namespaces or have no room in the map` : ""}.`;
  const about = drawing.chosen === null ? null : model.spots.get(drawing.chosen);
  find("alerts").hidden = !about?.alerts;
  if (about?.alerts) find("alerts").textContent = `${about.alerts.toLocaleString("en")} ${about.alerts === 1 ? "alert" : "alerts"} of ${about.name}`;
  find("empty").hidden = edges.length > 0;
  if (!edges.length) find("empty").textContent = all ? "Nothing of this was seen. Empty the filter, or choose a longer time." : (model.state.empty ?? empty);
}

function toggle(name) {
  if (!drawing.open.delete(name)) drawing.open.add(name);
  const focused = document.activeElement?.dataset?.box;
  anew();
  if (focused) document.querySelector(`[data-box="${CSS.escape(focused)}"]`)?.focus();
}

function choose(id) {
  drawing.chosen = id;
  pair = null;
  refresh(false);
}

function line(link) {
  if (link.edges.length === 1) return show(link.edges[0]);
  pair = new Set(link.edges);
  refresh(false);
}

function show(edge) {
  table.chosen = edge.id;
  drawer.open(edge);
  table.show();
}

drawer.closed = () => {
  table.chosen = null;
  table.show();
};

find("filter").addEventListener("input", () => {
  try {
    keep = read(find("filter").value);
    find("wrong").textContent = "";
    if (judged && !policies.found && find("filter").value.includes("policy=")) policies.open();
  } catch (error) {
    find("wrong").textContent = error.message;
    return;
  }
  anew();
});
find("range").addEventListener("change", () => {
  model.choose(Number(find("range").value));
  anew();
});
find("open").addEventListener("click", () => {
  for (const { from, to } of chosen()) drawing.open.add(from.group).add(to.group);
  anew();
});
find("close").addEventListener("click", () => {
  drawing.open.clear();
  anew();
});
find("tidy").addEventListener("click", anew);
find("smaller").addEventListener("click", () => drawing.zoom(0.8));
find("larger").addEventListener("click", () => drawing.zoom(1.25));
find("fit").addEventListener("click", () => drawing.zoom(0));
find("alerts").addEventListener("click", () => drawer.about(model.spots.get(drawing.chosen)));
find("tools").addEventListener("submit", (event) => event.preventDefault());
for (const button of document.querySelectorAll("[data-save]")) button.addEventListener("click", () => save(button.dataset.save, drawing, chosen()));
find("canvas").addEventListener("click", () => {
  if (drawing.chosen !== null || pair) choose(null);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !["INPUT", "SELECT"].includes(document.activeElement.tagName)) {
    event.preventDefault();
    find("filter").focus();
  }
  if (event.key !== "Escape") return;
  if (!find("drawer").hidden) drawer.close();
  else if (drawing.chosen !== null || pair) choose(null);
});
addEventListener("resize", () => {
  drawing.size();
  table.show();
});

function tab(chosen) {
  for (const name of ["flows", "policies"]) {
    find(name).hidden = name !== chosen;
    find(`tab-${name}`).setAttribute("aria-selected", String(name === chosen));
    find(`tab-${name}`).tabIndex = name === chosen ? 0 : -1;
  }
  if (chosen === "policies" && !policies.found) policies.open();
  if (chosen === "flows") table.show();
}

for (const name of ["flows", "policies"]) {
  find(`tab-${name}`).addEventListener("click", () => tab(name));
  find(`tab-${name}`).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = name === "flows" ? "policies" : "flows";
    tab(other);
    find(`tab-${other}`).focus();
  });
}
find("tabs").hidden = !judged;

function take(message) {
  model.take(message);
  if (isWaiting) return;
  isWaiting = true;
  setTimeout(refresh, 100);
}

for (const message of messages) model.take(message);
if (live) {
  const source = new EventSource("events");
  source.onmessage = (event) => take(JSON.parse(event.data));
  source.onopen = () => (connected = true);
  source.onerror = () => {
    connected = false;
    refresh();
  };
} else find("range").hidden = true;
refresh(false);
document.documentElement.dataset.ready = "yes";
