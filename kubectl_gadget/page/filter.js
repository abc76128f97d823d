// The filter line: [from:|to:][!]key=value, or a word that stands in a name. Terms of one key are alternatives, else all hold.
import { whole } from "./model.js";

const WORD = (text) => text.toLowerCase().replaceAll(" ", "-");

const KEYS = {
  namespace: { ends: (spot) => [spot.group], whole: true },
  workload: { ends: (spot) => [spot.name, whole(spot)] },
  pod: { ends: (spot, pods) => [...pods, ...pods.map((pod) => `${spot.group}/${pod}`)] },
  service: { ends: (spot) => (spot.kind === "svc" ? [spot.name.replace(/^svc\//, ""), `${spot.group}/${spot.name.replace(/^svc\//, "")}`] : []) },
  ip: { ends: (spot) => (spot.kind === "raw" ? [spot.name] : []), whole: true, match: network },
  dns: { edge: (edge) => edge.domains ?? [], whole: true },
  port: { edge: (edge) => edge.ports.map((port) => port.split("/")[0]), whole: true },
  protocol: { edge: (edge) => edge.ports.map((port) => port.split("/").pop().toLowerCase()), whole: true },
  verdict: { edge: (edge) => (edge.verdicts ?? []).map(WORD), whole: true, plain: WORD },
  policy: { edge: (edge) => (edge.opinion ? [edge.opinion.verdict] : []), whole: true },
};
KEYS.ns = KEYS.namespace;
KEYS.svc = KEYS.service;

export function read(text) {
  const groups = new Map();
  for (const term of text.split(/[\s,]+/).filter(Boolean)) {
    const found = /^(!?)(?:(from|to):)?(!?)(?:([a-z]+)=)?(.*)$/.exec(term);
    const [, before, side, after, key, value] = found;
    if (key && !KEYS[key]) throw new Error(`${key}=: there is ${Object.keys(KEYS).join(", ")}`);
    if (!value) throw new Error(`${term}: say what is wanted`);
    if (side && key && !KEYS[key].ends) throw new Error(`${side}:${key}=: ${key} is of the flow, not of an end`);
    const not = Boolean(before || after);
    const test = key ? by(KEYS[key], side, value) : bare(side, value.toLowerCase());
    const name = not ? `!${term}` : `${side ?? ""}:${key ?? term}`;
    if (!groups.has(name)) groups.set(name, { not, tests: [] });
    groups.get(name).tests.push(test);
  }
  const all = [...groups.values()];
  return (edge) => all.every(({ not, tests }) => tests.some((test) => test(edge)) !== not);
}

function by(key, side, value) {
  const matches = key.match?.(value) ?? pattern(key.plain ? key.plain(value) : value, key.whole);
  if (key.edge) return (edge) => key.edge(edge).some(matches);
  const from = (edge) => key.ends(edge.from, edge.pods ?? []).some(matches);
  const to = (edge) => key.ends(edge.to, edge.peers ?? []).some(matches);
  return side === "from" ? from : side === "to" ? to : (edge) => from(edge) || to(edge);
}

function bare(side, word) {
  const has = (spot) => whole(spot).toLowerCase().includes(word);
  const ports = (edge) => edge.ports.some((port) => port.toLowerCase() === word || port.split("/")[0] === word);
  if (side) return (edge) => has(side === "from" ? edge.from : edge.to);
  return (edge) => has(edge.from) || has(edge.to) || ports(edge);
}

function pattern(value, isWhole) {
  const low = value.toLowerCase();
  if (!low.includes("*")) return isWhole ? (text) => text.toLowerCase() === low : (text) => text.toLowerCase().startsWith(low);
  const parts = low.split("*");
  return (text) => {
    let rest = text.toLowerCase();
    if (!rest.startsWith(parts[0])) return false;
    rest = rest.slice(parts[0].length);
    for (const part of parts.slice(1, -1)) {
      const at = rest.indexOf(part);
      if (at < 0) return false;
      rest = rest.slice(at + part.length);
    }
    return rest.endsWith(parts.at(-1));
  };
}

// A network of IPv4 such as 10.0.0.0/8; other addresses are compared as text.
function network(value) {
  const [address, bits] = value.split("/");
  if (bits === undefined) return null;
  const wanted = number(address);
  if (wanted === null || !(bits >= 0 && bits <= 32)) throw new Error(`${value}: want a network of IPv4, as 10.0.0.0/8`);
  const size = 2 ** (32 - bits);
  return (text) => number(text) !== null && Math.floor(number(text) / size) === Math.floor(wanted / size);
}

function number(address) {
  const parts = address.split(".").map(Number);
  if (parts.length !== 4 || parts.some((part) => !(part >= 0 && part < 256))) return null;
  return parts.reduce((sum, part) => sum * 256 + part, 0);
}
