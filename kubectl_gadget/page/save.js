// What is shown, as a file: a picture, numbers, or a drawing for a document.
import { whole } from "./model.js";
import { element } from "./text.js";

export function save(form, drawing, edges) {
  const made = { svg: () => picture(drawing), json: () => numbers(edges), mermaid: () => mermaid(edges) }[form]();
  const name = { svg: "map.svg", json: "map.json", mermaid: "map.mmd" }[form];
  const link = element("a", { href: URL.createObjectURL(new Blob([made])), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// The drawing with its colours written out, as a file has no style sheet.
export function picture(drawing) {
  const copy = drawing.svg.cloneNode(true);
  const kept = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-family", "font-weight", "text-anchor"];
  const shown = [...drawing.svg.querySelectorAll("*")];
  [...copy.querySelectorAll("*")].forEach((part, at) => {
    const style = getComputedStyle(shown[at]);
    for (const name of kept) if (style.getPropertyValue(name)) part.setAttribute(name, style.getPropertyValue(name));
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.style.background = getComputedStyle(document.body).backgroundColor;
  return new XMLSerializer().serializeToString(copy);
}

export function numbers(edges) {
  const end = ({ group, name, kind }) => ({ namespace: group, name, kind });
  const all = edges.map(({ from, to, ports, total: { seen, ...sums }, opinion }) => ({ from: end(from), to: end(to), ports, ...sums, policies: opinion?.verdict || undefined }));
  return `${JSON.stringify(all, null, 1)}\n`;
}

// Text that mermaid takes for nothing else: its escapes are like HTML's, with # instead of &.
function plain(text) {
  return [...text].map((each) => (/[\p{L}\p{N} \-_./:,()]/u.test(each) ? each : `#${each.codePointAt(0)};`)).join("");
}

export function mermaid(edges) {
  const groups = new Map();
  for (const { from, to } of edges) for (const spot of [from, to]) groups.set(spot.group, (groups.get(spot.group) ?? new Set()).add(spot));
  const lines = ["graph LR"];
  [...groups].forEach(([name, spots], at) => {
    lines.push(`  subgraph g${at}["${plain(name || "no namespace")}"]`);
    for (const spot of spots) lines.push(`    n${spot.id}["${plain(spot.name)}"]`);
    lines.push("  end");
  });
  for (const { from, to, ports, total } of edges) {
    lines.push(`  n${from.id} ${total.failed || total.dropped ? "-.->" : "-->"}|"${plain(ports.join(", "))}"| n${to.id}`);
  }
  return `${lines.join("\n")}\n`;
}
