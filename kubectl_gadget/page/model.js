// What is known: spots that talk, edges between them, and sums of each edge by minute.

export const ALL = 0; // the minute of what is older than the minutes that are kept, and of what has no time
const EMPTY = [0, 0, 0, 0, 0, 0, null];

export class Model {
  spots = new Map();
  edges = new Map();
  policies = new Map();
  state = {};
  minutes = 0;
  newest = 0;
  first = 0;

  clear() {
    this.spots.clear();
    this.edges.clear();
    this.first = this.newest = 0;
  }

  take(message) {
    if (message.reset) this.clear();
    if (message.state) this.state = message.state;
    for (const [id, group, name, kind] of message.spots ?? []) this.spots.set(id, { id, group, name, kind, alerts: 0 });
    for (const [id, labels] of message.labels ?? []) Object.assign(this.spots.get(id), { labels });
    for (const [id, alerts, priority] of message.alerts ?? []) Object.assign(this.spots.get(id), { alerts, priority });
    for (const [id, from, to, ports, pods, peers, verdicts, domains] of message.edges ?? []) {
      Object.assign(this.edge(id), { from: this.spots.get(from), to: this.spots.get(to), ports, pods, peers, verdicts, domains });
    }
    for (const [minute, id, ...sums] of message.sums ?? []) {
      const edge = this.edge(id);
      edge.minutes.set(minute, sums);
      edge.total = null;
      if (minute > this.newest) {
        this.newest = minute;
        if (this.minutes) this.forget();
      }
    }
    if (message.first && message.first !== this.first) {
      this.first = message.first;
      for (const edge of this.edges.values()) {
        for (const minute of edge.minutes.keys()) if (minute !== ALL && minute < this.first) edge.minutes.delete(minute);
        edge.total = null;
      }
    }
  }

  edge(id) {
    if (!this.edges.has(id)) this.edges.set(id, { id, minutes: new Map(), total: null });
    return this.edges.get(id);
  }

  forget() {
    for (const edge of this.edges.values()) edge.total = null;
  }

  choose(minutes) {
    this.minutes = minutes;
    this.forget();
  }

  // The edges of which something was seen in the chosen time, with their sums.
  *seen(keep = () => true) {
    const from = this.minutes ? Math.max(this.newest, Math.floor(Date.now() / 60000)) - this.minutes + 1 : 0;
    if (from !== this.from) this.forget();
    this.from = from;
    for (const edge of this.edges.values()) {
      if (!edge.from || !edge.to) continue;
      edge.total ??= added([...edge.minutes].filter(([minute]) => minute >= from).map(([, sums]) => sums));
      if (edge.total.seen && keep(edge)) yield edge;
    }
  }
}

function added(all) {
  const total = { seen: all.length > 0, connections: 0, failed: 0, dropped: 0, sent: null, received: null, last: 0, rtt: null, rtt99: null };
  const counts = new Map();
  for (const [connections, failed, dropped, sent, received, last, rtt] of all) {
    total.connections += connections;
    total.failed += failed;
    total.dropped += dropped;
    if (sent !== null) {
      total.sent += sent;
      total.received += received;
    }
    total.last = Math.max(total.last, last);
    for (const [bucket, count] of rtt ?? []) counts.set(bucket, (counts.get(bucket) ?? 0) + count);
  }
  total.rtt = quantile(counts, 0.5);
  total.rtt99 = quantile(counts, 0.99);
  return total;
}

// Buckets are quarters of powers of two: within a tenth of what it was.
function quantile(counts, part) {
  const order = [...counts].sort(([a], [b]) => a - b);
  let left = part * order.reduce((sum, [, count]) => sum + count, 0);
  for (const [bucket, count] of order) {
    left -= count;
    if (left <= 0) return 2 ** ((bucket + 0.5) / 4);
  }
  return null;
}

export function whole(spot) {
  return spot.group ? `${spot.group}/${spot.name}` : spot.name;
}

// What is worst of an edge, as its colour tells.
export function worst(total) {
  return total.dropped ? "dropped" : total.failed ? "failed" : "ok";
}

// An edge in a line.
export function label({ from, to, ports, total }) {
  const bad = [total.failed ? `${total.failed} failed` : "", total.dropped ? `${total.dropped} dropped` : ""];
  return [`${whole(from)} → ${whole(to)}`, ports.join(", "), `${total.connections.toLocaleString("en")} connections`, ...bad].filter(Boolean).join("; ");
}
