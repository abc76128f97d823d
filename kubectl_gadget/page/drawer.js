// All that is known of one edge, or of one box: sums, its last flows, and the alerts about who is there.
import { whole } from "./model.js";
import { amount, clock, element, took } from "./text.js";

const AGAIN_MS = 2000;
const number = (value) => value.toLocaleString("en");

export class Drawer {
  constructor(aside, isLive) {
    this.aside = aside;
    this.isLive = isLive;
    [this.title, this.body] = [aside.querySelector("h2"), aside.querySelector("#drawer-body")];
    aside.querySelector("button").addEventListener("click", () => this.close());
  }

  open(edge) {
    const parts = this.isLive ? [list("Last flows", "flows", `flows?edge=${edge.id}`, flow)] : [];
    this.show(`${whole(edge.from)} → ${whole(edge.to)}`, () => rows(edge), () => edge.total?.last, parts, [edge.from, edge.to]);
  }

  about(spot) {
    this.show(whole(spot), () => [], () => 0, [], [spot]);
  }

  // rows gives what is known in sums, last what the lists of parts depend on; those of alerts have their own count.
  show(title, rows, last, parts, spots) {
    if (this.aside.hidden) this.before = document.activeElement;
    [this.rows, this.asked] = [rows, 0];
    this.sums = element("dl");
    this.lists = [
      ...parts.map((part) => ({ ...part, news: last })),
      ...[...new Set(spots)].map((spot) => ({ ...list(`Alerts of ${whole(spot)}`, "flows", `alerts?spot=${spot.id}`, alert), news: () => spot.alerts })),
    ];
    this.body.replaceChildren(this.sums, ...this.lists.flatMap(({ head, body }) => [head, body]));
    this.title.textContent = title;
    this.aside.hidden = false;
    this.refresh();
    this.aside.focus();
  }

  close() {
    if (this.aside.hidden) return;
    this.aside.hidden = true;
    this.lists = [];
    this.rows = null;
    this.before?.focus?.();
    this.closed?.();
  }

  refresh() {
    if (!this.rows) return;
    const known = this.rows().filter(([, text]) => text);
    this.sums.replaceChildren(...known.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
    for (const each of this.lists) {
      const news = each.news();
      each.head.hidden = each.body.hidden = !news;
      if (this.isLive && news && news !== each.told && Date.now() - (each.asked ?? 0) > AGAIN_MS) this.ask(each, news);
    }
  }

  async ask(each, news) {
    each.asked = Date.now();
    const found = await fetch(each.path).then((answer) => (answer.ok ? answer.json() : []), () => []);
    if (!this.lists.includes(each)) return;
    each.told = news;
    each.body.replaceChildren(...found.map(each.item));
    if (!found.length) each.body.textContent = "None of them is kept any more.";
  }
}

function list(title, kind, path, item) {
  return { head: element("h3", {}, title), body: element("div", { class: kind }), path, item };
}

function rows({ total, ports, verdicts, pods, peers, domains, opinion }) {
  if (!total) return [];
  const some = (count, word) => (count ? `, ${number(count)} ${word}` : "");
  return [
    ["Connections", `${number(total.connections)}${some(total.failed, "failed")}${some(total.dropped, "dropped")}`],
    ["Verdicts", (verdicts ?? []).join(", ")],
    ["Bytes", total.sent === null ? "" : `${amount(total.sent)} sent, ${amount(total.received)} received`],
    ["RTT", total.rtt === null ? "" : `${took(total.rtt)} for half of them, ${took(total.rtt99)} for 99 of 100`],
    ["Last seen", clock(total.last)],
    ["Ports", ports.join(", ")],
    ["From", (pods ?? []).join(", ")],
    ["To", (peers ?? []).join(", ")],
    ["Domains", (domains ?? []).join(", ")],
    ["Policies", (opinion?.reasons ?? []).join("; ")],
  ];
}

function flow({ time, from, to, protocol, verdict, how }) {
  return element("p", { class: verdict === "forwarded" ? "" : "bad" },
    element("time", {}, clock(time / 1000)), ` ${from} → ${to} ${protocol.toUpperCase()} `, element("b", {}, verdict), ` ${how}`);
}

function alert({ time, priority, rule, pod, text, count, id }) {
  const more = [count > 1 ? `${number(count)} times` : "", id ? `kubectl gadget alerts show ${id}` : ""].filter(Boolean).join("; ");
  return element("p", { class: "bad" },
    element("time", {}, clock(time / 1000)), " ", element("b", {}, `${priority}: ${rule}`), ` ${pod} ${text}`,
    ...(more ? [element("span", { class: "dim" }, ` ${more}`)] : []));
}
