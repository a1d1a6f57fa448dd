// One pixel under each loss: what its loss looks like, which way its gradient points, and where it comes to rest.

const PENALTY_NAMES = [["l1", "L1: |d|"], ["l2", "L2: d²"], ["huber", "Huber"]];
const LOGITS = [-3, 15];

function penalty(model, el) {
  const places = { landscape: element("div"), gradient: element("div"), ceilings: element("div") };
  const summary = element("p", { class: "nacl-summary", "aria-live": "polite" });
  const methods = Object.keys(LOSSES), labelOf = (name) => model.get("loss_names")[name];
  const NAMES = ["penalty_weight", "penalty", "num_classes", "noise", "tau", "margin", "gamma", "smoothing", "delta"];
  const xs = Array.from({ length: 181 }, (_, i) => LOGITS[0] + (i * (LOGITS[1] - LOGITS[0])) / 180);

  function drawAll() {
    const options = Object.fromEntries(NAMES.map((name) => [name, model.get(name)]));
    const pixel = pixelOf(options), found = minima(pixel, options);
    const width = chartWidth(el, 2);
    places.landscape.replaceChildren(landscape(pixel, options, width));
    places.gradient.replaceChildren(gradient(pixel, options, width));
    const rows = methods.map((name) => ({ words: labelOf(name), value: found[name], colour: `var(--nacl-${name})`, note: fixed(found[name]) }));
    const ceiling = options.penalty === "l1" ? Math.max(0, 1 - options.penalty_weight / options.num_classes) : undefined;
    places.ceilings.replaceChildren(bars({
      width: chartWidth(el), rows, mark: ceiling, xLabel: ceiling === undefined ? "confidence in the label at the minimum" : "confidence in the label; dashed: 1 − λ/K",
      alt: `Confidence at the minimum: ${rows.map(({ words, note }) => `${words} ${note}`).join(", ")}.`,
    }));
    const at = restingLogit(pixel, options);
    summary.textContent = `With the others at their shares, NACL's loss is lowest at the logit ${fixed(at, 2)}; over all logits its minimum `
      + `has confidence ${fixed(found.nacl)} (CE ${fixed(found.ce)}, SVLS ${fixed(found.svls)}), where the labels say ${fixed(pixel.q)}.`;
  }

  // Where NACL's gradient in the one logit turns: its loss is convex, so there is one such place.
  function restingLogit(pixel, options) {
    return rootOf((x) => naclGradient(x, pixel, options).reduce((a, b) => a + b), -50, 750);
  }

  function landscape(pixel, options, width) {
    const top = 3;
    const c = chart({ width, x: LOGITS, y: [0, top], xLabel: "logit of the label, the others at their shares τ", yLabel: "loss",
      alt: `Six losses over the logit of the label. NACL's is lowest at ${fixed(restingLogit(pixel, options), 2)}.` });
    for (const name of methods) {
      const values = xs.map((x) => LOSSES[name](x, pixel, options)), low = Math.min(...values);
      c.line(xs.map((x, i) => [x, values[i]]), lineOf(name));
      const at = values.indexOf(low);
      if (at > 0 && at < xs.length - 1) c.dot(xs[at], low, { class: "nacl-hollow", stroke: `var(--nacl-${name})` });
    }
    return c.node;
  }

  const PARTS = { label: { stroke: "var(--nacl-ce)", "stroke-dasharray": "7 3", "stroke-width": 2 },
    tau: { stroke: "var(--nacl-svls)", "stroke-dasharray": "2 3", "stroke-width": 2 }, both: { stroke: "var(--nacl-nacl)", "stroke-width": 3 } };

  function gradient(pixel, options, width) {
    const parts = xs.map((x) => naclGradient(x, pixel, options));
    const c = chart({ width, x: LOGITS, y: [-1, 1], xLabel: "logit of the label", yLabel: "NACL's gradient",
      alt: "NACL's gradient in the logit of the label: its part towards the label, its part towards τ, and their sum." });
    c.add("line", { x1: c.X(LOGITS[0]), x2: c.X(LOGITS[1]), y1: c.Y(0), y2: c.Y(0), class: "nacl-zero" });
    c.line(xs.map((x, i) => [x, parts[i][0]]), PARTS.label);
    c.line(xs.map((x, i) => [x, parts[i][1]]), PARTS.tau);
    c.line(xs.map((x, i) => [x, parts[i][0] + parts[i][1]]), PARTS.both);
    const at = restingLogit(pixel, options);
    c.dot(at, 0, { class: "nacl-hollow", stroke: "var(--nacl-nacl)" });
    return c.node;
  }

  const share = (v) => fixed(v, 2);
  const controls = [
    slider(model, "penalty_weight", { label: "Penalty weight λ", ...logarithmic(0.001, 10) }),
    choice(model, "penalty", { label: "Penalty", options: () => PENALTY_NAMES }),
    slider(model, "num_classes", { label: "Classes K", min: 2, max: 20, step: 1 }),
    slider(model, "noise", { label: "Label noise", min: 0, max: 0.5, step: 0.01, text: share, hint: "how often the label is one of the other classes" }),
    slider(model, "tau", { label: "Share τ of label", min: 0, max: 1, step: 0.01, text: share, hint: "of the pixel's class among its neighbours" }),
    slider(model, "margin", { label: "Margin m of MbLS", min: 0, max: 15, step: 0.5 }),
    slider(model, "gamma", { label: "Focusing γ of FL", min: 0, max: 5, step: 0.1 }),
    slider(model, "smoothing", { label: "Smoothing α of LS", min: 0, max: 0.5, step: 0.01, text: share }),
    slider(model, "delta", { label: "Width δ of Huber", min: 0.1, max: 10, step: 0.1, of: "penalty", needs: "huber", hint: "of the Huber penalty only" }),
  ];
  const panel = (title, node, entries) => element("figure", {}, element("figcaption", {}, title), node, legend(entries));
  const body = [
    element("div", { class: "nacl-charts" },
      panel("The loss over one logit; rings mark the lowest point", places.landscape, methods.map((name) => [labelOf(name), lineOf(name)])),
      panel("The two parts of NACL's gradient", places.gradient,
        [["towards the label", PARTS.label], ["towards τ", PARTS.tau], ["their sum", PARTS.both]])),
    element("figure", {}, element("figcaption", {}, "How sure each loss lets the network be, over all logits"), places.ceilings),
    summary,
  ];
  return assemble(model, el, {
    title: "Explorer of the penalty", help: "Move a slider with the mouse, a finger, or the arrow keys.",
    controls, body, names: NAMES, drawing: drawer(el, drawAll),
  });
}
