// Paint labels; see whom a pixel's neighbours vote for, and what SVLS makes of it.

const PRIOR_NAMES = [["mean", "mean"], ["gaussian", "gaussian (SVLS)"], ["max", "max"], ["min", "min"], ["median", "median"], ["mode", "mode"]];
const OWN = "painted"; // the name of a map that is none of those offered
const BORDER_NAMES = [["inside", "nothing (inside)"], ["replicate", "the nearest pixel (replicate)"], ["background", "class 0 (background)"], ["zero", "a pixel of no class (zero)"]];

function neighbourhood(model, el) {
  const pictures = {
    labels: picture("labels y: paint here", { role: "application", tabindex: 0 }),
    tau: picture(""), svls: picture(""), band: picture(""),
  };
  const canvas = pictures.labels.canvas;
  const numbers = tablePanel(), band = tablePanel(), key = element("div", { class: "nacl-legend" });
  const summary = element("p", { class: "nacl-summary", "aria-live": "polite" }), note = element("p", { class: "nacl-note" });
  const nameOf = (k) => model.get("class_names")[k] ?? `class ${k}`;
  const classes = () => Array.from({ length: model.get("num_classes") }, (_, k) => [k, nameOf(k)]);
  // Those in words: all of a few, and of many those that the map holds.
  const named = () => classes().filter(([c]) => map.classes <= CLASSES.length || map.labels.includes(c) || c === model.get("shown_class"));

  const mapOf = () => {
    const rows = model.get("labels");
    return { height: rows.length, width: rows[0].length, labels: Int16Array.from(rows.flat()), classes: model.get("num_classes") };
  };
  const mapNames = () => [...Object.keys(model.get("maps")), ...(model.get("map") === OWN ? [OWN] : [])].map((name) => [name, name]);
  let map = mapOf();
  for (const name of ["labels", "num_classes"]) model.on(`change:${name}`, () => { map = mapOf(); });
  model.on("change:map", () => {
    const found = model.get("maps")[model.get("map")];
    if (!found) return;
    const last = found.num_classes - 1, clipped = (name) => Math.min(model.get(name), last);
    change(model, { num_classes: found.num_classes, class_names: found.class_names, shown_class: clipped("shown_class"),
      brush: clipped("brush"), cursor: [Math.floor(found.labels.length / 2), Math.floor(found.labels[0].length / 2)],
      labels: found.labels, logits: found.logits ?? null, note: found.note ?? "" });
  });

  const drawing = drawer(el, drawAll);
  let painting = false;
  const paint = ([row, column]) => {
    if (map.labels[row * map.width + column] === model.get("brush")) return;
    map.labels[row * map.width + column] = model.get("brush");
    drawing.later();
  };
  const rows = () => Array.from({ length: map.height }, (_, r) => Array.from(map.labels.subarray(r * map.width, (r + 1) * map.width)));
  const keep = () => change(model, { map: OWN, labels: rows() });
  const moveTo = (place) => {
    if (`${place}` !== `${model.get("cursor")}`) change(model, { cursor: place });
  };
  canvas.addEventListener("pointerdown", (event) => {
    painting = true;
    canvas.setPointerCapture(event.pointerId);
    moveTo(pictures.labels.place(map, event));
    paint(model.get("cursor"));
  });
  const hover = (shownIn) => (event) => {
    moveTo(shownIn.place(map, event));
    if (painting && shownIn === pictures.labels) paint(model.get("cursor"));
  };
  for (const shownIn of Object.values(pictures)) shownIn.canvas.addEventListener("pointermove", hover(shownIn));
  for (const shownIn of [pictures.tau, pictures.svls, pictures.band]) shownIn.canvas.addEventListener("pointerdown", hover(shownIn));
  for (const end of ["pointerup", "pointercancel"])
    canvas.addEventListener(end, () => {
      if (painting) keep();
      painting = false;
    });
  const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const [row, column] = model.get("cursor"), step = STEPS[event.key];
    const within = (place, size) => Math.min(Math.max(place, 0), size - 1);
    const digit = Number.parseInt(event.key, 10);
    if (step) moveTo([within(row + step[0], map.height), within(column + step[1], map.width)]);
    else if (event.key === " " || event.key === "Enter") { paint([row, column]); keep(); }
    else if (digit < map.classes) change(model, { brush: digit });
    else return;
    event.preventDefault();
  });

  const options = () => ({ kernel_size: model.get("kernel_size"), sigma: model.get("sigma"), prior: model.get("prior"), border: model.get("border") });
  function drawAll() {
    const values = options(), k = model.get("shown_class"), { width } = map, small = compacted(map), count = small.classes;
    const cursor = [Math.min(model.get("cursor")[0], map.height - 1), Math.min(model.get("cursor")[1], width - 1)];
    const tau = neighbourPrior(small, values), inSvls = svlsPrior(small, values);
    const label = Float64Array.from(inSvls, (share, i) => (share + (small.labels[Math.floor(i / count)] === i % count ? 1 : 0)) / 2);
    const softened = Float64Array.from(small.labels, (own, pixel) => 1 - label[pixel * count + own]);
    const of = (shares, pixel, c) => (small.place.has(c) ? shares[pixel * count + small.place.get(c)] : 0);
    const colours = classes().map(([c]) => rgbOf(classColour(c)));
    const frame = (context, cell) => outline(context, cell, cursor, (values.kernel_size - 1) / 2, map);
    pictures.labels.paint(map, (i) => colours[map.labels[i]], frame);
    pictures.tau.paint(map, (i) => scaleColour(of(tau, i, k)), frame);
    pictures.svls.paint(map, (i) => scaleColour(of(label, i, k)), frame);
    pictures.band.paint(map, (i) => scaleColour(2 * softened[i]), frame);
    const share = softened.filter((value) => value > 1e-9).length / softened.length;
    const words = { tau: `neighbours τ (${values.prior}) of ${nameOf(k)}`, svls: `SVLS label of ${nameOf(k)}`, band: "what SVLS takes from the own label" };
    for (const [name, text] of Object.entries(words)) {
      pictures[name].words.textContent = text;
      pictures[name].canvas.setAttribute("aria-label", `${text}, a map of ${map.height} by ${width} pixels`);
    }
    const here = cursor[0] * width + cursor[1], own = map.labels[here];
    canvas.setAttribute("aria-label", `Label map of ${map.height} by ${width} pixels. Row ${cursor[0]}, column ${cursor[1]}: ${nameOf(own)}. `
      + "Arrow keys move, space paints, digits choose the class.");
    key.replaceChildren(...named().map(([c, name]) => element("span", {},
      element("span", { class: "nacl-spot", style: `background: ${classColour(c)}` }), ` ${c} ${name}`)));
    const counts = countsAt(small, ...cursor, values);
    fillNumbers(cursor, values, own, (c) => ({ count: counts[small.place.get(c)] ?? 0,
      tau: of(tau, here, c), inSvls: of(inSvls, here, c), label: of(label, here, c) }));
    fillBand(softened);
    note.textContent = model.get("note");
    const most = softened.reduce((a, b) => Math.max(a, b), 0);
    summary.textContent = `SVLS changes the label of ${(100 * share).toFixed(1)}% of the pixels; `
      + (share ? `the pixel that gives up most keeps ${fixed(1 - most)} of its own label.` : "here it is cross-entropy.");
  }

  function fillNumbers([row, column], values, own, valuesOf) {
    const logits = model.get("logits");
    const columns = ["class", "label y", "in the window", `τ (${values.prior})`, "τ inside SVLS", "SVLS label"];
    const at = logits && classes().map(([c]) => logits[c][row][column]), probs = at && softmaxOf(at);
    if (at) columns.push("logit l", "softmax", "|l − τ|");
    const lines = named().map(([c, name]) => {
      const { count, tau, inSvls, label } = valuesOf(c);
      const line = [name, own === c ? "1" : "0", String(count), fixed(tau), fixed(inSvls), fixed(label)];
      return at ? [...line, fixed(at[c], 2), fixed(probs[c]), fixed(Math.abs(at[c] - tau), 2)] : line;
    });
    let words = `Pixel in row ${row}, column ${column}, and its window of ${values.kernel_size} × ${values.kernel_size}`;
    if (at) {
      const mean = at.reduce((sum, l, c) => sum + Math.abs(l - valuesOf(c).tau), 0) / at.length;
      words += `. NACL’s L1 penalty here, the mean of |l − τ|: ${fixed(mean)}`;
    }
    numbers.fill(words, columns, lines);
  }

  // Class by class: how much of it lies in the band that SVLS softens, and what its pixels keep.
  function fillBand(softened) {
    const sums = new Map();
    map.labels.forEach((own, pixel) => {
      const [pixels, touched, taken] = sums.get(own) ?? [0, 0, 0];
      sums.set(own, [pixels + 1, touched + (softened[pixel] > 1e-9), taken + softened[pixel]]);
    });
    const lines = classes().filter(([c]) => sums.has(c)).map(([c, name]) => {
      const [pixels, touched, taken] = sums.get(c);
      return [name, String(pixels), `${((100 * touched) / pixels).toFixed(1)}%`, fixed(1 - taken / pixels)];
    });
    band.fill("What SVLS changes, class by class", ["class", "pixels", "in the band", "mean share kept"], lines);
  }

  const controls = [
    choice(model, "map", { label: "Label map", options: mapNames }),
    slider(model, "kernel_size", { label: "Kernel size k", min: 1, max: 15, step: 2, text: (v) => `${v} × ${v}` }),
    slider(model, "sigma", { label: "Gaussian’s σ", min: 0.3, max: 5, step: 0.1, text: (v) => `${shown(v)} px` }),
    choice(model, "prior", { label: "Prior τ of NACL", options: () => PRIOR_NAMES }),
    choice(model, "border", { label: "Beyond the image", options: () => BORDER_NAMES }),
    choice(model, "shown_class", { label: "Show the class", options: classes, renew: ["class_names", "num_classes"] }),
    choice(model, "brush", { label: "Paint with", options: classes, renew: ["class_names", "num_classes"] }),
  ];
  const figures = element("div", { class: "nacl-pictures" }, ...Object.values(pictures).map(({ figure }) => figure));
  const names = ["labels", "kernel_size", "sigma", "prior", "border", "shown_class", "cursor", "class_names", "num_classes", "logits", "note"];
  return assemble(model, el, {
    title: "Explorer of the neighbourhood",
    help: "Paint labels with the mouse, a finger or the keys; move the sliders; point at a pixel to read its numbers.",
    controls, names, drawing,
    body: [note, figures, key, scaleBar("0", "1 (in the last map ½)"), summary,
      element("div", { class: "nacl-tables" }, numbers.node, band.node)],
  });
}
