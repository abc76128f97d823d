// The filter line: [from:|to:][!]key=value, or a word that stands in a name. Terms of one key are alternatives, else all hold.
// tests/unit/observe/terms.json has what it means, for observe as well.
import { whole } from "./model.js";

const WORD = (text) => text.toLowerCase().replaceAll(" ", "-");

const KEYS = {
  namespace: { ends: (spot) => [spot.group], whole: true },
  workload: { ends: (spot) => [spot.name, whole(spot)] },
  pod: { ends: (spot, pods) => [...pods, ...pods.map((pod) => `${spot.group}/${pod}`)] },
  service: { ends: (spot) => (spot.kind === "svc" ? [spot.name.replace(/^svc\//, ""), `${spot.group}/${spot.name.replace(/^svc\//, "")}`] : []) },
  ip: { ends: (spot) => (spot.kind === "raw" ? [spot.name] : []), whole: true, match: network },
  dns: { edge: (edge) => edge.domains ?? [], whole: true, asked: true, plain: (name) => name.replace(/\.$/, "") },
  port: { edge: (edge) => edge.ports.map((port) => port.split("/")[0]), whole: true, asked: true, plain: port },
  protocol: { edge: (edge) => edge.ports.map((port) => port.split("/").pop().toLowerCase()), whole: true },
  verdict: { edge: (edge) => (edge.verdicts ?? []).map(WORD), whole: true, plain: WORD },
  policy: { edge: (edge) => (edge.opinion ? [edge.opinion.verdict] : []), whole: true },
};
const SAME = new Map([["ns", "namespace"], ["svc", "service"]]);

export function read(text) {
  const groups = new Map();
  for (const term of text.split(/[\s,]+/).filter(Boolean)) {
    const [, before, side, after, written, value] = /^(!?)(?:(from|to):)?(!?)(?:([a-z]+)=)?(.*)$/.exec(term);
    const key = SAME.get(written) ?? written;
    const not = Boolean(before || after);
    const name = not ? `!${term}` : `${side ?? ""}:${key ?? term}`;
    if (!groups.has(name)) groups.set(name, { not, tests: [] });
    try {
      groups.get(name).tests.push(one(side, key, value));
    } catch (error) {
      throw new Error(`${term}: ${error.message}`);
    }
  }
  const all = [...groups.values()];
  return (edge) => all.every(({ not, tests }) => tests.some((test) => test(edge)) !== not);
}

function one(side, key, value) {
  const means = Object.hasOwn(KEYS, key) ? KEYS[key] : null;
  if (key && !means) throw new Error(`there is ${Object.keys(KEYS).join(", ")}`);
  if (!value) throw new Error("say what is wanted");
  if (side === "from" && means?.asked) throw new Error(`${key} is of the end that was asked: to:${key}=${value}`);
  if (side && key && !means.ends && !means.asked) throw new Error(`${key} is of the flow, not of an end`);
  return key ? by(means, side, value) : bare(side, value.toLowerCase());
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

const ADDRESS = "want an address such as 10.0.0.1, or a network such as fd00::/8";

// A network such as 10.0.0.0/8; other addresses are compared as text.
function network(value) {
  const [address, bits] = value.split("/");
  if (/^[0-9a-f:.*]*\*[0-9a-f:.*]*$/.test(value)) return null;
  const wanted = number(address);
  if (wanted === null || (bits !== undefined && !(/^\d+$/.test(bits) && Number(bits) <= wanted.size))) throw new Error(ADDRESS);
  const behind = BigInt(wanted.size - (bits ?? wanted.size));
  return (text) => {
    const own = number(text);
    return own?.size === wanted.size && own.value >> behind === wanted.value >> behind;
  };
}

function port(value) {
  if (!/^\d{1,5}$/.test(value) || value < 1 || value > 65535) throw new Error("want a port, 1 to 65535");
  return String(Number(value));
}

// An address as a number of so many bits; null if it is none.
function number(address) {
  const quad = /^(?:\d{1,3}\.){3}\d{1,3}$/;
  if (quad.test(address)) {
    const parts = address.split(".").map(Number);
    return parts.every((part) => part < 256) ? { size: 32, value: joined(parts, 8n) } : null;
  }
  if (!/^[0-9a-f:.]+$/i.test(address)) return null;
  let plain;
  try {
    plain = new URL(`ws://[${address}]`).hostname.slice(1, -1); // with IPv4 in it, as hexadecimal digits
  } catch {
    return null;
  }
  const [before, after] = plain.split("::").map((half) => half.split(":").filter(Boolean));
  const zeros = after ? Array(8 - before.length - after.length).fill("0") : [];
  return { size: 128, value: joined([...before, ...zeros, ...(after ?? [])].map((part) => parseInt(part, 16)), 16n) };
}

function joined(parts, bits) {
  return parts.reduce((sum, part) => (sum << bits) + BigInt(part), 0n);
}
