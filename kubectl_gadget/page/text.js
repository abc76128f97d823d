// How numbers look, and elements from text: nothing that is shown is ever read as HTML.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

export function amount(size) {
  let unit = 0;
  while (size >= 999.5 && unit < UNITS.length - 1) {
    size /= 1000;
    unit++;
  }
  return `${unit && size < 99.95 ? size.toFixed(1) : Math.round(size)} ${UNITS[unit]}`;
}

export function took(nanoseconds) {
  if (nanoseconds === null) return "";
  for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) {
    const value = nanoseconds / size;
    if (value >= 1) return `${value < 99.5 ? value.toPrecision(2) : Math.round(value)} ${unit}`;
  }
  return `${Math.round(nanoseconds)} ns`;
}

export function clock(seconds) {
  return seconds ? new Date(seconds * 1000).toLocaleTimeString("en-GB") : "";
}

export function fit(text, letters) {
  const all = [...text];
  if (all.length <= letters) return text;
  const head = Math.ceil((letters - 1) / 2);
  return `${all.slice(0, head).join("")}…${all.slice(all.length - (letters - 1 - head)).join("")}`;
}

const pen = document.createElement("canvas").getContext("2d");

// A text in so many pixels, of the size that the map has.
export function fitted(text, width, weight = 400) {
  pen.font = `${weight} 12.5px system-ui, sans-serif`;
  let letters = Math.min([...text].length, Math.floor(width / 3));
  while (letters > 1 && pen.measureText(fit(text, letters)).width > width) letters--;
  return fit(text, letters);
}

export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function shape(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}
