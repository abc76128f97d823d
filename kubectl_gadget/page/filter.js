// The filter line: which edges terms choose. Their grammar is given, and is that of observe: those of one key are
// alternatives, else all hold. tests/unit/observe/terms.json has what they mean, for observe as well.
import { whole } from "./model.js";

const WORD = (text) => text.toLowerCase().replaceAll(" ", "-");

const MEANS = {
  namespace: { ends: (spot) => [spot.group], whole: true },
  workload: { ends: (spot) => [spot.name, whole(spot)] },
  pod: { ends: (spot, pods) => [...pods, ...pods.map((pod) => `${spot.group}/${pod}`)] },
  service: { ends: (spot) => (spot.kind === "svc" ? [spot.name.replace(/^svc\//, ""), `${spot.group}/${spot.name.replace(/^svc\//, "")}`] : []) },
  ip: { ends: (spot) => (spot.kind === "raw" ? [spot.name] : []), whole: true, match: network },
  label: { ends: (spot) => (spot.kind === "pod" ? [spot.labels ?? []] : []), match: label },
  dns: { edge: (edge) => edge.domains ?? [], whole: true, plain: (name) => name.replace(/\.$/, "") },
  port: { edge: (edge) => edge.ports.map((port) => port.split("/")[0]), whole: true, plain: port },
  protocol: { edge: (edge) => edge.ports.map((port) => port.split("/").pop().toLowerCase()), whole: true },
  verdict: { edge: (edge) => (edge.verdicts ?? []).map(WORD), whole: true, plain: WORD },
  policy: { edge: (edge) => edge.opinion?.words ?? [], match: policy },
};

// Reads filters by a grammar. none: keys of which nothing is known here, each with what there is to say of it.
export function reader(grammar, none) {
  const [term, between] = [new RegExp(grammar.term, "s"), new RegExp(grammar.between)];
  const filled = (text, key, value) => text.replaceAll("{key}", key).replaceAll("{value}", () => value);

  function one(side, key, value) {
    if (key && !grammar.keys.includes(key)) throw new Error(grammar.unknown);
    if (!value) throw new Error(grammar.empty);
    if (side && grammar.flow.includes(key)) throw new Error(filled(grammar.noEnd, key, value));
    if (side === "from" && grammar.asked.includes(key)) throw new Error(filled(grammar.noBeginner, key, value));
    if (none[key]) throw new Error(none[key]);
    return key ? by(MEANS[key], side, value, grammar) : bare(side, value.toLowerCase());
  }

  return (text) => {
    const groups = new Map();
    for (const each of text.split(between).filter(Boolean)) {
      const [, before, side, after, written, value] = term.exec(each);
      const key = Object.hasOwn(grammar.same, written) ? grammar.same[written] : written;
      const not = Boolean(before || after);
      const name = not ? `!${each}` : `${side ?? ""}:${key ?? each}`;
      if (!groups.has(name)) groups.set(name, { not, tests: [] });
      try {
        groups.get(name).tests.push(one(side, key, value));
      } catch (error) {
        throw new Error(`${each}: ${error.message}`);
      }
    }
    const all = [...groups.values()];
    return (edge) => all.every(({ not, tests }) => tests.some((test) => test(edge)) !== not);
  };
}

function by(key, side, value, grammar) {
  const matches = key.match?.(value, grammar) ?? pattern(key.plain ? key.plain(value) : value, key.whole);
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

// A selector of labels, as a test of those that pods of a workload have.
function label(value, grammar) {
  const found = new RegExp(grammar.label).exec(value)?.groups;
  if (!found || found.set || (found.absent && found.op)) throw new Error(grammar.wantLabel);
  const order = { "<": (own) => own < Number(found.value), ">": (own) => own > Number(found.value) }[found.op];
  if (order && !/^\d+$/.test(found.value)) throw new Error(grammar.wantLabel);
  return (labels) => {
    const own = labels.filter((each) => each.startsWith(`${found.key}=`)).map((each) => each.slice(found.key.length + 1));
    if (order) return own.some((each) => /^\d{1,18}$/.test(each) && order(Number(each)));
    if (!found.op) return Boolean(own.length) !== Boolean(found.absent);
    return found.op === "!=" ? !own.length || own.some((each) => each !== found.value) : own.includes(found.value);
  };
}

// What policies said, in a word, or [NAMESPACE/]NAME of one that said it.
function policy(value, grammar) {
  if (grammar.said.includes(value.toLowerCase())) return (word) => word === value.toLowerCase();
  const at = value.lastIndexOf("/");
  if (!/^[\p{L}\p{N}_.*-]*\/?[\p{L}\p{N}_.*-]*$/u.test(value) || value === "/") throw new Error("want NAME, NAMESPACE/NAME or NAMESPACE/");
  const tests = [value.slice(0, Math.max(at, 0)), value.slice(at + 1)].map((part) => pattern(part || "*", true));
  return (word) => {
    const slash = word.indexOf("/"); // words that are no policy have none
    return slash >= 0 && tests[0](word.slice(0, slash)) && tests[1](word.slice(slash + 1));
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
