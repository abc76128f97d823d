// All that is known of one edge, and its last flows.
import { whole } from "./model.js";
import { amount, clock, element, took } from "./text.js";

const AGAIN_MS = 2000;

export class Drawer {
  constructor(aside, isLive) {
    this.aside = aside;
    this.isLive = isLive;
    [this.title, this.body] = [aside.querySelector("h2"), aside.querySelector("#drawer-body")];
    aside.querySelector("button").addEventListener("click", () => this.close());
  }

  open(edge) {
    if (this.aside.hidden) this.before = document.activeElement;
    this.edge = edge;
    this.asked = 0;
    this.flows = element("div", { class: "flows" });
    this.sums = element("dl");
    this.body.replaceChildren(this.sums, ...(this.isLive ? [element("h3", {}, "Last flows"), this.flows] : []));
    this.title.textContent = `${whole(edge.from)} → ${whole(edge.to)}`;
    this.aside.hidden = false;
    this.refresh();
    this.aside.focus();
  }

  close() {
    if (this.aside.hidden) return;
    this.aside.hidden = true;
    this.edge = null;
    this.before?.focus?.();
    this.closed?.();
  }

  refresh() {
    const { edge } = this;
    if (!edge) return;
    const { total } = edge;
    if (!total) return;
    const rows = [
      ["Connections", `${total.connections.toLocaleString("en")}${total.failed ? `, ${total.failed.toLocaleString("en")} failed` : ""}${total.dropped ? `, ${total.dropped.toLocaleString("en")} dropped` : ""}`],
      ["Verdicts", (edge.verdicts ?? []).join(", ")],
      ["Bytes", total.sent === null ? "" : `${amount(total.sent)} sent, ${amount(total.received)} received`],
      ["RTT", total.rtt === null ? "" : `${took(total.rtt)} for half of them, ${took(total.rtt99)} for 99 of 100`],
      ["Last seen", clock(total.last)],
      ["Ports", edge.ports.join(", ")],
      ["From", (edge.pods ?? []).join(", ")],
      ["To", (edge.peers ?? []).join(", ")],
      ["Domains", (edge.domains ?? []).join(", ")],
      ["Policies", (edge.opinion?.reasons ?? []).join("; ")],
    ];
    this.sums.replaceChildren(...rows.filter(([, text]) => text).flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
    if (this.isLive && Date.now() - this.asked > AGAIN_MS && total.last !== this.shown) this.ask(edge, total.last);
  }

  async ask(edge, last) {
    this.asked = Date.now();
    const flows = await fetch(`flows?edge=${edge.id}`).then((answer) => (answer.ok ? answer.json() : []), () => []);
    if (this.edge !== edge) return;
    this.shown = last;
    this.flows.replaceChildren(
      ...flows.map(({ time, from, to, protocol, verdict, how }) =>
        element("p", { class: verdict === "forwarded" ? "" : "bad" },
          element("time", {}, new Date(time).toLocaleTimeString("en-GB")), ` ${from} → ${to} ${protocol.toUpperCase()} `, element("b", {}, verdict), ` ${how}`)),
    );
    if (!flows.length) this.flows.textContent = "None of them is kept any more.";
  }
}
