// The policies' tab: what they deny of what was seen, which rule allowed what, which rules nothing used, and what is
// advised instead.
import { whole } from "./model.js";
import { element } from "./text.js";

const AGAIN_MS = 5000;

export class Policies {
  constructor(main, told) {
    [this.main, this.told] = [main, told];
  }

  // What was judged is asked for again from time to time: policies and flows change.
  async open(path = "policies") {
    if (this.asking) return;
    this.asking = true;
    if (!this.found) this.main.replaceChildren(element("p", { class: "dim" }, "Asking the agents for all that was seen …"));
    const found = await fetch(path).then((answer) => answer.json(), () => ({ error: "the command has ended, or does not answer" }));
    this.asking = false;
    this.timer ??= setInterval(() => document.hidden || this.open(), AGAIN_MS);
    const again = element("button", { type: "button" }, "Judge again");
    again.addEventListener("click", () => this.open("policies?anew=1"));
    if (found.error) {
      if (!this.found || path !== "policies") this.main.replaceChildren(element("p", { role: "alert" }, found.error), again);
      return;
    }
    if (this.found && found.number === this.found.number) return;
    const focused = this.main.contains(document.activeElement);
    this.found = found;
    this.show(again);
    if (focused) again.focus();
    this.told();
  }

  show(again) {
    const { flows, unused, allowed, denied, policies } = this.found;
    const sum = `${allowed.toLocaleString("en")} of ${(allowed + denied).toLocaleString("en")} connections allowed, ${denied.toLocaleString("en")} denied; policies: ${policies.length}, rules that nothing used: ${unused.length}. All that the agents' flow recorder saw.`;
    const bad = flows.filter(({ verdict }) => verdict === "denied");
    const rules = new Map();
    for (const flow of flows) if (flow.verdict === "allowed") rules.set(flow.reason, [...(rules.get(flow.reason) ?? []), flow]);
    this.main.replaceChildren(
      element("p", {}, again, ` ${sum}`),
      element("p", {}, policies.length ? `Policies: ${policies.join(", ")}` : "There are no policies about these pods: all is let through."),
      ...this.found.notes.map((note) => element("p", { class: "dim" }, note)),
      ...section("Denied", "These policies would deny nothing of it.", bad, ["From", "To", "Port", "Connections", "Why"], (flow) => [...ends(flow), flow.reason]),
      ...section("Rules and what they allowed", "Nothing was allowed by a rule.", [...rules], ["Rule", "What it allowed"], ([reason, those]) => [reason, listed(those)]),
      ...section("Rules that nothing used", "Each rule was used.", unused, ["Policy", "Rule", "Allows", "Seen for"], (rule) => [`${rule.namespace}/${rule.policy}`, `${rule.direction} ${rule.rule}`, rule.effective ? rule.allows : `${rule.allows}: no effect, policyTypes has no such direction`, `${Math.round(rule.seconds / 60)} min`]),
      element("h2", {}, "What is advised instead"),
      ...this.advice(),
    );
  }

  advice() {
    const save = element("button", { type: "button" }, "Save the advised policies");
    save.addEventListener("click", () => {
      const link = element("a", { href: URL.createObjectURL(new Blob([this.found.advised])), download: "policies.yaml" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
    const lines = this.found.diff.split(/^/m).map((line) => (/^[-+](?![-+]{2} )/.test(line) ? element(line[0] === "+" ? "ins" : "del", {}, line) : line));
    return [save, element("pre", { tabindex: 0 }, ...lines)];
  }

  // What the policies say of an edge: its worst verdict, with the reasons.
  opinions(edges) {
    if (!this.found) return;
    const by = new Map();
    for (const flow of this.found.flows) {
      const key = `${flow.source} ${flow.target}`;
      by.set(key, [...(by.get(key) ?? []), flow]);
    }
    for (const edge of edges) {
      const those = by.get(`${called(edge.from)} ${called(edge.to)}`) ?? [];
      const words = new Set(those.length ? those.flatMap(said) : ["not-judged"]);
      const verdict = those.some((flow) => flow.verdict === "denied") ? "denied" : those.length ? "allowed" : "";
      edge.opinion = { verdict, words: [...words], reasons: those.map((flow) => `${flow.port}/${flow.protocol} ${flow.verdict}: ${flow.reason}`) };
    }
  }
}

// What a filter can ask for: the verdict, unless no policy has a say, and those that gave it.
function said({ verdict, maybe, policies }) {
  if (!policies.length) return [];
  return [verdict === "denied" && maybe ? "may-be-denied" : verdict, ...policies];
}

function called(spot) {
  return spot.kind === "pod" ? whole(spot) : spot.name;
}

function ends({ source, target, port, protocol, connections, maybe }) {
  return [source, target, `${port}/${protocol}`, `${maybe ? "up to " : ""}${connections.toLocaleString("en")}`];
}

function listed(flows) {
  const all = flows.map(({ source, target, port, protocol }) => `${source} → ${target} ${port}/${protocol}`);
  return all.length > 8 ? `${all.slice(0, 8).join("; ")}; and ${all.length - 8} more` : all.join("; ");
}

function section(title, none, items, names, cells) {
  if (!items.length) return [element("h2", {}, title), element("p", { class: "dim" }, none)];
  const head = element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name))));
  const body = element("tbody", {}, ...items.map((item) => element("tr", {}, ...cells(item).map((text) => element("td", {}, text)))));
  return [element("h2", {}, title), element("table", { class: "plain" }, head, body)];
}
