// Where boxes stand: groups in lines, each below those that talk to it; in a group columns, each behind those that
// talk to it.

export const BOX = { width: 168, height: 34 };
const GAP = { column: 50, row: 12 };
const GROUP_GAP = { column: 48, row: 56 };
const PAD = 14;
export const HEAD = 26;
const MOST_ROWS = 7;
export const CLOSED = { width: 196, height: 58 };

// groups: Map of names to {open, items}; links: of pairs [from, to] of items, and pairs of names of groups.
export function arrange(groups, links, groupLinks, width) {
  const places = new Map();
  const boxes = new Map();
  const inner = new Map();
  for (const [name, group] of groups) {
    const grid = group.open ? columns(group.items, links.filter(([from, to]) => group.items.has(from) && group.items.has(to)), Math.max(MOST_ROWS, Math.ceil(2 * Math.sqrt(group.items.size)))) : null;
    const rows = grid ? Math.max(...grid.map((column) => column.length), 1) : 0;
    inner.set(name, { grid, rows });
    boxes.set(
      name,
      grid
        ? {
            width: 2 * PAD + Math.max(grid.length, 1) * (BOX.width + GAP.column) - GAP.column,
            height: HEAD + PAD + rows * (BOX.height + GAP.row) - GAP.row + 4,
          }
        : { ...CLOSED },
    );
  }
  const order = columns(new Set(groups.keys()), groupLinks, Infinity);
  const widest = Math.max(width, ...[...boxes.values()].map((box) => box.width + 2 * PAD));
  let top = PAD;
  for (const line of order.flatMap((names) => lines(names, boxes, widest))) {
    let left = (widest - line.reduce((sum, name) => sum + boxes.get(name).width + GROUP_GAP.column, -GROUP_GAP.column)) / 2;
    for (const name of line) {
      place(name, left, top);
      left += boxes.get(name).width + GROUP_GAP.column;
    }
    top += Math.max(...line.map((name) => boxes.get(name).height)) + GROUP_GAP.row;
  }
  return places;

  function place(name, left, top) {
    places.set(name, { left, top, ...boxes.get(name), free: [] });
    const { grid, rows } = inner.get(name);
    grid?.forEach((items, across) => {
      for (let down = 0; down < rows; down++) {
        const own = { left: left + PAD + across * (BOX.width + GAP.column), top: top + HEAD + down * (BOX.height + GAP.row), ...BOX };
        if (down < items.length) places.set(items[down], own);
        else places.get(name).free.push(own);
      }
    });
  }
}

// Names in lines that are no wider than the drawing.
function lines(names, boxes, widest) {
  const found = [[]];
  let room = widest;
  for (const name of names) {
    const { width } = boxes.get(name);
    if (found.at(-1).length && width > room) {
      found.push([]);
      room = widest;
    }
    found.at(-1).push(name);
    room -= width + GROUP_GAP.column;
  }
  return found;
}

// Columns of items, each behind what leads to it, rings cut open; those of no link fill up the shortest.
function columns(items, links, most) {
  const after = new Map([...items].map((item) => [item, new Set()]));
  const before = new Map([...items].map((item) => [item, new Set()]));
  for (const [from, to] of links) {
    if (from === to) continue;
    after.get(from).add(to);
    before.get(to).add(from);
  }
  const linked = [...items].filter((item) => after.get(item).size || before.get(item).size);
  const alone = [...items].filter((item) => !after.get(item).size && !before.get(item).size);
  const depth = flattened(depths(linked, after, before), linked.length);
  let found = [];
  for (const item of linked) (found[depth.get(item)] ??= []).push(item);
  found = untangled([...found].map((column) => column ?? []), after, before);
  found = found.flatMap((column) => cut(column, most));
  if (!alone.length) return found;
  if (!linked.length) {
    const height = most === Infinity ? alone.length : Math.min(most, Math.max(3, Math.ceil(Math.sqrt(alone.length * 2))));
    return cut(alone, height);
  }
  const tallest = Math.max(...found.map((column) => column.length));
  for (const item of alone) {
    const shortest = found.reduce((best, column) => (column.length < best.length ? column : best));
    if (shortest.length < Math.max(tallest, 3)) shortest.push(item);
    else if (found.at(-1).length < most) found.at(-1).push(item);
    else found.push([item]);
  }
  return found;
}

// Where all talk with all, a chain through all of them says nothing: no more columns than the square root has.
function flattened(depth, count) {
  const deepest = Math.max(0, ...depth.values());
  const most = Math.max(4, Math.ceil(Math.sqrt(count)));
  if (deepest < most) return depth;
  return new Map([...depth].map(([item, at]) => [item, Math.floor((at * most) / (deepest + 1))]));
}

function cut(column, most) {
  if (column.length <= most) return [column];
  const parts = Math.ceil(column.length / most);
  const size = Math.ceil(column.length / parts);
  return Array.from({ length: parts }, (_, part) => column.slice(part * size, (part + 1) * size));
}

function depths(items, after, before) {
  const entered = new Set();
  const done = [];
  const starts = [...items].sort((a, b) => before.get(a).size - before.get(b).size);
  for (const start of starts) {
    if (entered.has(start)) continue;
    entered.add(start);
    const stack = [[start, after.get(start).values()]];
    while (stack.length) {
      const [item, rest] = stack.at(-1);
      let next = rest.next();
      while (!next.done && entered.has(next.value)) next = rest.next();
      if (next.done) {
        done.push(item);
        stack.pop();
      } else {
        entered.add(next.value);
        stack.push([next.value, after.get(next.value).values()]);
      }
    }
  }
  const depth = new Map(items.map((item) => [item, 0]));
  const passed = new Set();
  for (const item of done.reverse()) {
    passed.add(item);
    for (const next of after.get(item)) {
      if (!passed.has(next)) depth.set(next, Math.max(depth.get(next), depth.get(item) + 1));
    }
  }
  return depth;
}

// Each column in the order of the middle of its neighbours, over and back, which makes lines cross less.
function untangled(found, after, before) {
  for (let round = 0; round < 4; round++) {
    const row = new Map();
    for (const column of found) column.forEach((item, at) => row.set(item, (at + 0.5) / column.length));
    const middle = (item) => {
      const near = [...after.get(item), ...before.get(item)];
      return near.length ? near.reduce((sum, each) => sum + row.get(each), 0) / near.length : row.get(item);
    };
    found = found.map((column) => {
      const at = new Map(column.map((item) => [item, middle(item)]));
      return [...column].sort((a, b) => at.get(a) - at.get(b));
    });
  }
  return found;
}
