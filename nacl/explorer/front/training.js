// A finished sweep: what trained networks did at each value of the sliders.

const EVERY_SEED = "all";

function training(model, el) {
  const sweep = model.get("sweep"), labelOf = (name) => sweep.loss_names[name] ?? name;
  const values = (name) => [...new Set(sweep.runs.map((run) => run[name]))].filter((v) => v !== null).sort((a, b) => a - b);
  const axes = { nacl: ["penalty_weight", "kernel_size"], svls: ["kernel_size"], mbls: ["margin"] };
  const methods = [...new Set(sweep.runs.map((run) => run.loss))];
  const places = Object.fromEntries(["scores", "diagram", "logits"].map((name) => [name, element("div", { class: "nacl-side" })]));
  const maps = { image: picture("the image"), ce: picture(""), chosen: picture("") };
  const summary = element("p", { class: "nacl-summary", "aria-live": "polite" });
  const label = { ...sweep.slice, labels: bytes(sweep.slice.labels) }, image = bytes(sweep.slice.image);

  // The runs of a method at the sliders' values: one for each seed.
  function runsOf(loss) {
    const fits = (run) => run.loss === loss && (axes[loss] ?? []).every((name) => run[name] === model.get(name));
    return sweep.runs.filter(fits);
  }
  // What is drawn of a method: the chosen seed, or all seeds together.
  function chosen(loss) {
    const runs = runsOf(loss), seed = model.get("seed");
    const own = seed === EVERY_SEED ? runs : runs.filter((run) => String(run.seed) === seed);
    if (!own.length) return null;
    return {
      runs: own,
      scores: seed === EVERY_SEED ? sweep.groups[own[0].group].scores : own[0].scores,
      bins: total(own.map((run) => run.bins)), logits: total(own.map((run) => run.logits)),
    };
  }

  const describe = (loss) => [labelOf(loss), ...(axes[loss] ?? []).map((name) => `${SYMBOLS[name]} = ${shown(model.get(name))}`)].join(", ");

  function drawAll() {
    const loss = model.get("loss"), width = chartWidth(el, 2);
    const found = Object.fromEntries(methods.map((name) => [name, chosen(name)]));
    const now = found[loss];
    if (!now) throw new Error(`the sweep has no run of ${describe(loss)} with seed ${model.get("seed")}`);
    places.scores.replaceChildren(...["dice", "ece_all"].map((metric) => intervals(found, metric, width)));
    const key = () => legend([...new Set(["ce", loss])].map((name) => [describe(name), lineOf(name)]));
    places.diagram.replaceChildren(diagram(found, loss, width), key());
    places.logits.replaceChildren(histogram(found, loss, width), key());
    maps.image.paint(label, (i) => [image[i], image[i], image[i]], (context, cell) => borders(context, cell, label));
    confidenceMap(maps.ce, found.ce, "CE");
    confidenceMap(maps.chosen, now, describe(loss));
    maps.image.canvas.setAttribute("aria-label", "A test slice with the borders of its labels");
    const { dice, ece_all: ece } = now.scores;
    summary.textContent = `${describe(loss)}: Dice ${fixed(dice[0])}, expected calibration error ${fixed(ece[0], 4)}`
      + `, mean confidence ${fixed(meanConfidence(now.bins))}`
      + (loss === "nacl" ? `; the ceiling 1 − λ/K is ${fixed(Math.max(0, 1 - model.get("penalty_weight") / sweep.class_names.length))}.` : ".");
  }

  function intervals(found, metric, width) {
    const words = { dice: "Dice", ece_all: "ECE" }[metric], rows = methods.filter((name) => found[name]);
    const ends = sweep.ranges[metric], height = 34 * rows.length + 60;
    const c = chart({ width, height, left: 62, right: 154, x: ends, y: [rows.length - 0.5, -0.5], xLabel: `${words} (${sweep.level * 100}% interval)`, yLabel: "",
      alt: rows.map((name) => `${describe(name)}: ${words} ${fixed(found[name].scores[metric][0], 4)}`).join("; ") });
    for (const node of [...c.node.querySelectorAll("text[text-anchor=end]")]) node.remove();
    rows.forEach((name, i) => {
      const [mean, low, high] = found[name].scores[metric], colour = `var(--nacl-${name})`;
      c.add("text", { x: 56, y: c.Y(i) + 4, "text-anchor": "end", class: name === model.get("loss") ? "nacl-chosen" : "" }, labelOf(name));
      const within = (v) => Math.min(Math.max(v, ends[0]), ends[1]);
      if (low !== null) c.add("line", { x1: c.X(within(low)), x2: c.X(within(high)), y1: c.Y(i), y2: c.Y(i), stroke: colour, "stroke-width": 3 });
      c.dot(mean, i, { fill: colour });
      const digits = metric === "dice" ? 3 : 4;
      c.add("text", { x: width - 146, y: c.Y(i) + 4 }, fixed(mean, digits) + (low === null ? "" : ` (${fixed(low, digits)}–${fixed(high, digits)})`));
    });
    return c.node;
  }

  function diagram(found, loss, width) {
    const c = chart({ width, height: 280, x: [0, 1], y: [0, 1], xLabel: "confidence", yLabel: "accuracy",
      alt: `Reliability diagram of CE and ${describe(loss)}: accuracy in ${sweep.n_bins} bins of confidence.` });
    c.line([[0, 0], [1, 1]], { class: "nacl-zero" });
    for (const name of new Set(["ce", loss])) {
      const points = reliability(found[name].bins);
      c.line(points.map(({ confidence, accuracy }) => [confidence, accuracy]), lineOf(name));
      for (const { confidence, accuracy, share } of points)
        c.dot(confidence, accuracy, { r: 2 + 7 * Math.sqrt(share), fill: `var(--nacl-${name})`, "fill-opacity": 0.7 });
    }
    return c.node;
  }

  function histogram(found, loss, width) {
    const [low, high] = sweep.logit_range, count = found.ce.logits.length, step = (high - low) / count;
    const shares = (logits) => logits.map((n) => n / logits.reduce((a, b) => a + b));
    const tallest = Math.max(...[...new Set(["ce", loss])].flatMap((name) => shares(found[name].logits)));
    const c = chart({ width, height: 280, x: [low, high], y: [0, tallest * 1.05], xLabel: "largest logit less the mean of all", yLabel: "share of pixels",
      alt: `How far the largest logit of a pixel is above the mean of its logits, for CE and ${describe(loss)}.` });
    for (const name of new Set(["ce", loss])) {
      const line = shares(found[name].logits).flatMap((share, i) => [[low + i * step, share], [low + (i + 1) * step, share]]);
      c.line([[low, 0], ...line, [high, 0]], lineOf(name));
    }
    return c.node;
  }

  function confidenceMap(place, found, words) {
    const { confidence, wrong } = unpacked(bytes(found.runs[0].map), sweep.class_names.length);
    place.paint(label, (i) => scaleColour(confidence[i]), (context, cell) => {
      context.fillStyle = "#ff4fa3";
      wrong.forEach((at, i) => {
        if (at) context.fillRect((i % label.width + 0.3) * cell, (Math.floor(i / label.width) + 0.3) * cell, 0.4 * cell, 0.4 * cell);
      });
    });
    const errors = wrong.reduce((a, b) => a + b, 0);
    place.words.textContent = `confidence, ${words}, seed ${found.runs[0].seed}`;
    place.canvas.setAttribute("aria-label", `Map of the confidence of ${words}; ${errors} of ${wrong.length} pixels are wrong`);
  }

  const controls = [
    choice(model, "loss", { label: "Method", options: () => methods.map((name) => [name, labelOf(name)]) }),
    ...["penalty_weight", "kernel_size", "margin"].filter((name) => values(name).length)
      .map((name) => stops(model, name, values(name), { label: LABELS[name] })),
    choice(model, "seed", { label: "Seed", options: () => [[EVERY_SEED, `all (${values("seed").length})`], ...values("seed").map((s) => [String(s), String(s)])] }),
  ];
  const panel = (title, ...nodes) => element("figure", {}, element("figcaption", {}, title), ...nodes);
  const body = [
    panel("Overlap and calibration of each method", places.scores),
    element("div", { class: "nacl-charts" },
      panel("Is it right as often as it is sure?", places.diagram), panel("How far the logits are apart", places.logits)),
    element("div", { class: "nacl-pictures nacl-three" }, ...Object.values(maps).map(({ figure }) => figure)),
    scaleBar(`confidence ${fixed(1 / sweep.class_names.length, 2)}`, "1"),
    element("p", { class: "nacl-note" }, "Pink dots: the network is wrong there."), summary, element("p", { class: "nacl-note" }, sweep.made),
  ];
  return assemble(model, el, {
    title: "Explorer of a finished sweep", help: "Slide through networks that were trained; nothing here is computed from a formula.",
    controls, body, names: ["loss", "penalty_weight", "kernel_size", "margin", "seed"], drawing: drawer(el, drawAll),
  });
}

const SYMBOLS = { penalty_weight: "λ", kernel_size: "k", margin: "m" };
const LABELS = { penalty_weight: "NACL’s weight λ", kernel_size: "Kernel size k", margin: "MbLS’s margin m" };
