// Small parts that all explorers are put together from: elements, sliders, choices, tables, and when to draw.

let made = 0; // ids count up, so that the same page has the same ids each time

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  node.append(...children);
  return node;
}

// Numbers as people write them: three digits, no rows of zeros, a real minus.
function shown(value, digits = 3) {
  if (!Number.isFinite(value)) return value > 0 ? "∞" : value < 0 ? "−∞" : "–";
  const rounded = Number(value.toPrecision(digits));
  const text = rounded !== 0 && Math.abs(rounded) < 1e-4 ? rounded.toExponential() : String(rounded);
  return text.replace(/-/g, "−");
}

const fixed = (value, digits = 3) => (Number.isFinite(value) ? value.toFixed(digits).replace("-", "−") : shown(value));

// Tell the model, which keeps what it holds to be valid, and then whoever listens.
function change(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

// A slider of numbers: `at` gives a position for a value, `value` the other way round. It rests unless another value,
// `of`, is `needs`.
function slider(model, name, { label, min, max, step, at = (v) => v, value = (p) => p, text = shown, hint, of, needs }) {
  const id = `nacl-${name}-${++made}`;
  const input = element("input", { id, type: "range", min, max, step, title: hint });
  const output = element("output", { for: id });
  const update = () => {
    input.value = at(model.get(name));
    output.textContent = text(model.get(name));
    input.setAttribute("aria-valuetext", output.textContent);
    input.disabled = of !== undefined && model.get(of) !== needs;
  };
  input.addEventListener("input", () => change(model, { [name]: value(Number(input.value)) }));
  for (const source of [name, of].filter(Boolean)) model.on(`change:${source}`, update);
  update();
  return element("div", { class: "nacl-control" }, element("label", { for: id }, label), input, output);
}

// A slider over a list of values.
function stops(model, name, values, options) {
  const nearest = (v) => values.reduce((best, x, i) => (Math.abs(x - v) < Math.abs(values[best] - v) ? i : best), 0);
  return slider(model, name, { ...options, min: 0, max: values.length - 1, step: 1, at: nearest, value: (i) => values[i] });
}

// Three digits of a number on a slider whose positions are powers of ten.
const logarithmic = (low, high) => ({
  min: Math.log10(low), max: Math.log10(high), step: 0.01,
  at: (v) => Math.log10(v), value: (p) => Math.min(high, Math.max(low, Number((10 ** p).toPrecision(3)))),
});

// A choice of one; `options` gives [value, words] pairs, and is asked again when one of `renew` changes.
function choice(model, name, { label, options, renew = [] }) {
  const id = `nacl-${name}-${++made}`, select = element("select", { id });
  let pairs = [];
  const update = () => {
    pairs = options();
    select.replaceChildren(...pairs.map(([, words], i) => element("option", { value: i }, words)));
    select.value = pairs.findIndex(([value]) => value === model.get(name));
  };
  select.addEventListener("change", () => change(model, { [name]: pairs[select.value][0] }));
  for (const source of [name, ...renew]) model.on(`change:${source}`, update);
  update();
  return element("div", { class: "nacl-control" }, element("label", { for: id }, label), select, element("span"));
}

// A table under a line of words, in a frame that stays as it is filled anew, scrolled as it was.
function tablePanel(place = "nacl-numbers") {
  const id = `${place}-${++made}`, caption = element("p", { id, class: "nacl-caption" });
  const frame = element("div", { class: place, tabindex: 0, role: "group", "aria-labelledby": id });
  return {
    node: element("div", {}, caption, frame),
    fill(words, columns, rows) {
      caption.textContent = words;
      frame.replaceChildren(table(id, columns, rows));
    },
  };
}

function table(caption, columns, rows) {
  const head = element("tr", {}, ...columns.map((words) => element("th", { scope: "col" }, words)));
  const line = ([first, ...cells]) =>
    element("tr", {}, element("th", { scope: "row" }, first), ...cells.map((cell) => element("td", {}, cell)));
  return element("table", { "aria-labelledby": caption }, element("thead", {}, head), element("tbody", {}, ...rows.map(line)));
}

// How wide a chart may be: two stand side by side where there is room.
function chartWidth(el, columns = 1) {
  const wide = (el.clientWidth || 700) - 26;
  return columns === 2 && wide > 640 ? Math.floor((wide - 16) / 2) : wide;
}

// Draw once in a frame, however many values change in it, and say what went wrong instead of standing still.
function drawer(el, draw) {
  const trouble = element("p", { class: "nacl-trouble", role: "alert" });
  let waiting = false;
  const now = () => {
    waiting = false;
    const start = performance.now();
    try {
      draw();
      trouble.textContent = "";
    } catch (error) {
      trouble.textContent = `This can't be drawn: ${error.message}. Choose another value.`;
    }
    el.dataset.milliseconds = (performance.now() - start).toFixed(1);
  };
  const later = () => {
    if (!waiting) requestAnimationFrame(now);
    waiting = true;
  };
  return { trouble, now, later };
}

// What all explorers share: their frame, and that they draw anew where a value or the width changes.
function assemble(model, el, { title, help, controls, body, names, drawing: { trouble, now, later } }) {
  el.classList.add("nacl-explorer");
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", title);
  el.append(element("p", { class: "nacl-help" }, help), element("div", { class: "nacl-controls" }, ...controls), trouble, ...body);
  for (const name of names) model.on(`change:${name}`, later);
  for (const focused of el.querySelectorAll("input, select, [tabindex]"))
    focused.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes arrows, space and digits for itself
  let width = 0;
  const watch = new ResizeObserver(() => {
    if (el.clientWidth && el.clientWidth !== width) {
      width = el.clientWidth;
      later();
    }
  });
  watch.observe(el);
  now();
  return () => watch.disconnect();
}
