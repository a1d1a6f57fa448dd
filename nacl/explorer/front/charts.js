// Charts as SVG, drawn in pixels of the page, so that letters have one size on every screen.

function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Round numbers that divide a range into about `count` parts.
function ticks([low, high], count = 5) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(Number((i * step).toPrecision(6)));
  return found;
}

// A frame with axes; `x` and `y` are ranges. Returned with it: how to place marks inside.
function chart({ width, height = 240, x, y, xLabel, yLabel, alt, left = 46, right = 10 }) {
  const top = 10, bottom = 40;
  const X = (v) => left + ((v - x[0]) / (x[1] - x[0])) * (width - left - right);
  const Y = (v) => height - bottom - ((v - y[0]) / (y[1] - y[0])) * (height - top - bottom);
  const node = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": alt });
  const text = (words, at) => draw("text", at, words);
  for (const v of ticks(x, Math.max(2, Math.min(6, (width - left - right) / 55)))) {
    node.append(draw("line", { class: "nacl-grid", x1: X(v), x2: X(v), y1: top, y2: height - bottom }));
    node.append(text(shown(v), { x: X(v), y: height - bottom + 15, "text-anchor": "middle" }));
  }
  for (const v of ticks(y, 5)) {
    node.append(draw("line", { class: "nacl-grid", x1: left, x2: width - right, y1: Y(v), y2: Y(v) }));
    node.append(text(shown(v), { x: left - 5, y: Y(v) + 4, "text-anchor": "end" }));
  }
  node.append(text(xLabel, { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }));
  const middle = (top + height - bottom) / 2;
  node.append(text(yLabel, { x: 11, y: middle, "text-anchor": "middle", transform: `rotate(-90 11 ${middle})` }));
  const inside = (v, [low, high]) => Math.min(Math.max(v, low), high);
  const within = (v, ends) => v >= Math.min(...ends) && v <= Math.max(...ends);
  return {
    node, X, Y,
    add: (tag, attributes, ...children) => node.append(draw(tag, attributes, ...children)),
    // Points beyond the frame end the line there; it goes on where they come back.
    line(points, look) {
      const room = 3 * (y[1] - y[0]);
      const path = points.filter(([, v]) => Number.isFinite(v) || Math.abs(v) === Infinity)
        .map(([u, v]) => `${X(u).toFixed(1)},${Y(inside(v, [y[0] - room, y[1] + room])).toFixed(1)}`);
      const id = `nacl-clip-${++made}`;
      node.append(draw("clipPath", { id }, draw("rect", { x: left, y: top, width: width - left - right, height: height - top - bottom })));
      node.append(draw("polyline", { points: path.join(" "), fill: "none", "clip-path": `url(#${id})`, ...look }));
    },
    dot(u, v, look) {
      if (within(u, x) && within(v, y)) node.append(draw("circle", { cx: X(u), cy: Y(v), r: 5, ...look }));
    },
  };
}

// Each method by a colour of the theme and by its own dashes, so that it is told apart without colours too.
const DASHES = { ce: "", svls: "7 3", label_smoothing: "2 3", focal: "9 3 2 3", mbls: "5 5", nacl: "" };
const lineOf = (method) =>
  ({ stroke: `var(--nacl-${method})`, "stroke-width": method === "nacl" ? 3 : 2, "stroke-dasharray": DASHES[method] ?? "" });

function legend(entries) {
  const sample = (look) => draw("svg", { width: 28, height: 12, "aria-hidden": "true" },
    draw("line", { x1: 1, x2: 27, y1: 6, y2: 6, ...look }));
  return element("div", { class: "nacl-legend" },
    ...entries.map(([words, look]) => element("span", {}, sample(look), ` ${words}`)));
}

// Horizontal bars from 0 to 1 with their values, `mark` a line across all of them.
function bars({ width, rows, alt, xLabel, mark }) {
  const left = 62, right = 52, line = 26, height = rows.length * line + 38;
  const X = (v) => left + v * (width - left - right);
  const node = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": alt });
  rows.forEach(({ words, value, colour, note }, i) => {
    const y = 4 + i * line;
    node.append(draw("text", { x: left - 6, y: y + 15, "text-anchor": "end" }, words));
    node.append(draw("rect", { x: left, y, width: X(1) - left, height: line - 6, class: "nacl-track" }));
    node.append(draw("rect", { x: left, y, width: Math.max(0, X(value) - left), height: line - 6, fill: colour }));
    node.append(draw("text", { x: X(1) + 5, y: y + 15 }, note));
  });
  const bottom = rows.length * line + 2;
  if (mark !== undefined)
    node.append(draw("line", { x1: X(mark), x2: X(mark), y1: 0, y2: bottom, class: "nacl-mark" }));
  for (const v of [0, 0.5, 1]) node.append(draw("text", { x: X(v), y: bottom + 13, "text-anchor": "middle" }, shown(v)));
  node.append(draw("text", { x: X(0.5), y: bottom + 30, "text-anchor": "middle" }, xLabel));
  return node;
}
