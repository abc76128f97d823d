"use strict";
const data = JSON.parse(document.querySelector("#data").textContent);
const { names, files, kinds, depths, name, counts, hz, unit } = data;
const number = depths.length, ROW = 18, LEAST = 0.5;
const starts = new Float64Array(number), ends = new Int32Array(number), parents = new Int32Array(number).fill(-1);
{
  const open = [], next = [];
  for (let at = 0; at < number; at++) {
    const depth = depths[at];
    while (open.length > depth) ends[open.pop()] = at;
    const parent = depth ? open[depth - 1] : -1;
    parents[at] = parent;
    starts[at] = depth ? next[depth - 1] : 0;
    if (depth) next[depth - 1] += counts[at];
    next[depth] = starts[at];
    open[depth] = at;
  }
  while (open.length) ends[open.pop()] = number;
}
const canvas = document.querySelector("canvas"), pen = canvas.getContext("2d");
const told = document.querySelector("#told"), search = document.querySelector("input");
const all = counts[0] || 1;
let zoom = 0, chosen = 0, over = -1, found = null, shown = [], foundPart = 0;

const part = (count) => (100 * count / all).toFixed(count * 1000 < all ? 3 : 1) + " %";
function colour(at) {
  const id = name[at];
  if (found && found[id]) return "#c39bd3";
  const kind = kinds[id], shade = (id * 37) % 24;
  if (kind === 1) return `hsl(${22 + shade / 3} 78% ${66 + shade / 3}%)`;
  if (kind === 2) return `hsl(${130 + shade} 45% ${70 + shade / 3}%)`;
  if (kind === 3) return `hsl(210 12% ${80 + shade / 3}%)`;
  return `hsl(${42 + shade / 2} 84% ${68 + shade / 3}%)`;
}
function draw() {
  const wide = canvas.clientWidth || 1, scale = window.devicePixelRatio || 1;
  const from = starts[zoom], per = wide / (counts[zoom] || 1);
  const rows = [];
  let deepest = depths[zoom];
  for (let at = parents[zoom]; at >= 0; at = parents[at]) rows.push([at, 0, wide]);
  for (let at = zoom; at < ends[zoom];) {
    const width = counts[at] * per;
    if (width < LEAST) { at = ends[at]; continue; }
    rows.push([at, (starts[at] - from) * per, width]);
    if (depths[at] > deepest) deepest = depths[at];
    at++;
  }
  shown = rows;
  const high = (deepest + 1) * ROW;
  canvas.width = wide * scale; canvas.height = high * scale; canvas.style.height = high + "px";
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.font = "12px system-ui, sans-serif"; pen.textBaseline = "middle";
  for (const [at, left, width] of rows) {
    const top = depths[at] * ROW;
    pen.globalAlpha = depths[at] < depths[zoom] ? 0.6 : 1;
    pen.fillStyle = colour(at);
    pen.fillRect(left, top, Math.max(width - 0.5, 0.5), ROW - 1);
    if (at === chosen) {
      pen.strokeStyle = "#0550ae"; pen.lineWidth = 2;
      pen.strokeRect(left + 1, top + 1, width - 2.5, ROW - 3);
    }
    if (width > 24) {
      const room = Math.floor((width - 6) / 6.2), text = names[name[at]];
      pen.fillStyle = "#1b1f24";
      const fitted = text.length > room ? text.slice(0, Math.max(room - 1, 0)) + "…" : text;
      pen.fillText(fitted, left + 3, top + ROW / 2, width - 4);
    }
  }
  pen.globalAlpha = 1;
  tell(over >= 0 ? over : chosen);
}
function tell(at) {
  const id = name[at], file = files[id] ? ` (${files[id]})` : "";
  const samples = unit === "waiting" ? "" : `${counts[at]} samples, `;
  const seconds = `, ${(counts[at] / hz).toFixed(2)} s of ${unit}`;
  const hits = found ? ` — found: ${part(foundPart)}` : "";
  told.textContent = `${names[id]}${file}: ${samples}${part(counts[at])}${seconds}${hits}`;
}
function at(event) {
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left;
  const depth = Math.floor((event.clientY - box.top) / ROW);
  for (const [each, left, width] of shown) if (depths[each] === depth && x >= left && x < left + width) return each;
  return -1;
}
function look(text) {
  const wanted = text.trim().toLowerCase();
  found = wanted ? names.map((each) => each.toLowerCase().includes(wanted)) : null;
  foundPart = 0;
  for (let each = 0; found && each < number;) {
    if (found[name[each]]) { foundPart += counts[each]; each = ends[each]; } else each++;
  }
  draw();
}
function to(each) { zoom = chosen = each; draw(); }
function beside(each, by) {
  const depth = depths[each], parent = parents[each];
  if (by > 0) return parent >= 0 && ends[each] < ends[parent] ? ends[each] : each;
  let before = each;
  for (let other = parent + 1; parent >= 0 && other < each; other = ends[other]) before = other;
  return depths[before] === depth ? before : each;
}
function largest(each) {
  let best = each;
  for (let other = each + 1; other < ends[each]; other = ends[other])
    if (best === each || counts[other] > counts[best]) best = other;
  return best;
}
canvas.onclick = (event) => { const each = at(event); if (each >= 0) to(each); };
canvas.onmousemove = (event) => { over = at(event); tell(over >= 0 ? over : chosen); };
canvas.onmouseleave = () => { over = -1; tell(chosen); };
canvas.onkeydown = (event) => {
  const moves = {
    ArrowDown: () => largest(chosen),
    ArrowUp: () => Math.max(parents[chosen], 0),
    ArrowLeft: () => beside(chosen, -1),
    ArrowRight: () => beside(chosen, 1),
  };
  if (event.key === "Enter") to(chosen);
  else if (moves[event.key]) {
    chosen = moves[event.key]();
    if (chosen < zoom || chosen >= ends[zoom]) zoom = chosen;
    over = -1; draw();
  } else return;
  event.preventDefault();
};
document.onkeydown = (event) => {
  if (event.key === "Escape") {
    if (found) { search.value = ""; look(""); } else to(0);
    canvas.focus();
  }
  if (event.key === "/" && document.activeElement !== search) { search.focus(); event.preventDefault(); }
};
search.oninput = () => look(search.value);
document.querySelector("form").onsubmit = (event) => { event.preventDefault(); canvas.focus(); };
document.querySelector("button").onclick = () => { search.value = ""; look(""); to(0); };
window.onresize = draw;
draw();
