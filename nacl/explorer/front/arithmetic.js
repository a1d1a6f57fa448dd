// The formulas of nacl.priors, nacl.losses and nacl.theory for one label map and for one pixel.

// The label at a place, beyond the image by the choice of `border`: a class, -1 for "counts nowhere", K for "of no class".
function labelAt(map, row, column, border) {
  const { height, width, labels, classes } = map;
  if (row >= 0 && row < height && column >= 0 && column < width) return labels[row * width + column];
  if (border === "inside") return -1;
  if (border === "background") return 0;
  if (border === "zero") return classes;
  const nearest = (place, size) => Math.min(Math.max(place, 0), size - 1);
  return labels[nearest(row, height) * width + nearest(column, width)];
}

// The map with those classes alone that it holds, and class 0: however many there are, the others have no share.
function compacted(map) {
  const held = [...new Set([0, ...map.labels])].sort((a, b) => a - b), place = new Map(held.map((k, i) => [k, i]));
  return { ...map, labels: map.labels.map((k) => place.get(k)), classes: held.length, place };
}

function framed(map, radius, border) {
  const width = map.width + 2 * radius, height = map.height + 2 * radius;
  const values = new Int16Array(width * height);
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++)
      values[row * width + column] = labelAt(map, row - radius, column - radius, border);
  return { values, width };
}

// The Gaussian weights of a window relative to those of the nearest neighbours, the centre 0; or 1 each.
function windowWeights(size, sigma, ring) {
  const radius = (size - 1) / 2, weights = new Float64Array(size * size);
  for (let i = 0; i < size; i++)
    for (let j = 0; j < size; j++) {
      const square = (i - radius) ** 2 + (j - radius) ** 2;
      weights[i * size + j] = !ring ? 1 : square === 0 ? 0 : Math.exp(-(square - 1) / 2 / sigma / sigma);
    }
  return weights;
}

// The weight of each class in the window of each pixel, and of all that counts there.
function evidence(map, { kernel_size: size, sigma, border }, ring) {
  const { height, width, classes } = map, radius = (size - 1) / 2;
  const frame = framed(map, radius, border), weights = windowWeights(size, sigma, ring);
  const weight = new Float64Array(height * width * classes), total = new Float64Array(height * width);
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++) {
      const pixel = row * width + column;
      for (let i = 0; i < size; i++) {
        const line = (row + i) * frame.width + column;
        for (let j = 0; j < size; j++) {
          const label = frame.values[line + j];
          if (label < 0) continue;
          total[pixel] += weights[i * size + j];
          if (label < classes) weight[pixel * classes + label] += weights[i * size + j];
        }
      }
    }
  return { weight, total };
}

// How many pixels of each class are in the window of one.
function countsAt(map, row, column, { kernel_size: size, border }) {
  const radius = (size - 1) / 2, counts = new Array(map.classes).fill(0);
  for (let i = row - radius; i <= row + radius; i++)
    for (let j = column - radius; j <= column + radius; j++) {
      const label = labelAt(map, i, j, border);
      if (label >= 0 && label < map.classes) counts[label] += 1;
    }
  return counts;
}

// The shares tau among the neighbours, as inside SVLS: pixel by pixel, the classes together.
function svlsPrior(map, options) {
  const { classes, labels } = map;
  const { weight, total } = evidence(map, options, true);
  for (let pixel = 0; pixel < total.length; pixel++) {
    if (total[pixel] === 0) weight[pixel * classes + labels[pixel]] = 1; // no neighbour: its own label
    for (let k = 0; k < classes; k++) weight[pixel * classes + k] /= total[pixel] || 1;
  }
  return weight;
}

// The label of SVLS, (y + tau) / 2.
function svlsLabel(map, options) {
  const label = svlsPrior(map, options);
  for (let i = 0; i < label.length; i++) label[i] /= 2;
  map.labels.forEach((k, pixel) => { label[pixel * map.classes + k] += 0.5; });
  return label;
}

// The one class that speaks for a window with these counts.
function elected(count, prior) {
  const present = [...count.keys()].filter((k) => count[k] > 0);
  if (prior === "max") return present[present.length - 1];
  if (prior === "min") return present[0];
  if (prior === "mode") return present.reduce((best, k) => (count[k] > count[best] ? k : best));
  const total = count.reduce((sum, n) => sum + n, 0);
  let upTo = 0;
  return present.find((k) => (upTo += count[k]) * 2 >= total);
}

// nacl.neighbour_prior.
function neighbourPrior(map, options) {
  if (options.prior === "gaussian") return svlsLabel(map, options);
  const { classes } = map;
  const { weight, total } = evidence(map, options, false);
  for (let pixel = 0; pixel < total.length; pixel++) {
    const own = weight.subarray(pixel * classes, (pixel + 1) * classes);
    if (options.prior === "mean") {
      for (let k = 0; k < classes; k++) own[k] /= total[pixel];
    } else {
      const winner = elected(own, options.prior);
      own.fill(0);
      own[winner] = 1;
    }
  }
  return weight;
}

function softmaxOf(logits) {
  const top = Math.max(...logits), terms = logits.map((l) => Math.exp(l - top));
  const sum = terms.reduce((a, b) => a + b);
  return terms.map((term) => term / sum);
}

function penaltyValue(distance, penalty, delta) {
  const size = Math.abs(distance);
  if (penalty === "l1") return size;
  if (penalty === "l2") return size * size;
  const inside = Math.min(size, delta);
  return inside * (size - inside / 2);
}

function penaltySlope(distance, penalty, delta) {
  if (penalty === "l1") return Math.sign(distance);
  if (penalty === "l2") return 2 * distance;
  return Math.max(-delta, Math.min(delta, distance));
}

// One pixel whose label is class 0 and, by `noise`, now and then another; the other classes are alike.
function pixelOf({ num_classes: classes, noise, tau }) {
  const others = classes - 1;
  return { classes, others, q: 1 - noise, qOther: noise / others, tau, tauOther: (1 - tau) / others };
}

// log-probabilities of the label and of each other class, whose logits are `gap` below.
function logProbs(gap, others) {
  const excess = gap > 0 ? Math.log1p(others * Math.exp(-gap)) : Math.log(Math.exp(gap) + others) - gap;
  return [-excess, -gap - excess];
}

// The loss, in the mean over noisy labels, where the label's logit is x and the others sit at their shares.
const LOSSES = {
  ce: (x, pixel) => crossEntropy(pixel.q, x, pixel),
  label_smoothing: (x, pixel, { smoothing }) => crossEntropy((1 - smoothing) * pixel.q + smoothing / pixel.classes, x, pixel),
  focal: (x, pixel, { gamma }) => {
    const [own, other] = logProbs(x - pixel.tauOther, pixel.others);
    return -pixel.q * (-Math.expm1(own)) ** gamma * own
      - pixel.others * pixel.qOther * (-Math.expm1(other)) ** gamma * other;
  },
  svls: (x, pixel) => crossEntropy((pixel.q + pixel.tau) / 2, x, pixel),
  mbls: (x, pixel, { penalty_weight: weight, margin, penalty, delta }) => {
    const gap = x - pixel.tauOther;
    const hinge = penaltyValue(Math.max(0, Math.abs(gap) - margin), penalty, delta);
    return LOSSES.ce(x, pixel) + (weight / pixel.classes) * (gap > 0 ? pixel.others : 1) * hinge;
  },
  nacl: (x, pixel, { penalty_weight: weight, penalty, delta }) =>
    LOSSES.ce(x, pixel) + (weight / pixel.classes) * penaltyValue(x - pixel.tau, penalty, delta),
};

// Against a target that gives the label the share `own`, and the rest to the others.
function crossEntropy(own, x, pixel) {
  const [logOwn, logOther] = logProbs(x - pixel.tauOther, pixel.others);
  return -own * logOwn - (1 - own) * logOther;
}

// The two parts of NACL's gradient in x: towards the label, and towards tau.
function naclGradient(x, pixel, { penalty_weight: weight, penalty, delta }) {
  const [logOwn] = logProbs(x - pixel.tauOther, pixel.others);
  return [Math.exp(logOwn) - pixel.q, (weight / pixel.classes) * penaltySlope(x - pixel.tau, penalty, delta)];
}

// Where a rising function turns positive.
function rootOf(rising, low, high) {
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (rising(middle) > 0) high = middle;
    else low = middle;
  }
  return (low + high) / 2;
}

// The confidence at the minimum over all logits: the p of nacl.theory.nacl_minimum, found along the one line that is left.
function naclConfidence(pixel, { penalty_weight: weight, penalty, delta }) {
  const c = weight / pixel.classes;
  if (c === 0) return pixel.q;
  const radius = { l1: c, l2: Infinity, huber: c * delta }[penalty];
  const softness = { l1: Infinity, l2: 2 * c, huber: c }[penalty];
  const rising = (p) => Math.log(p) - Math.log((1 - p) / pixel.others) - (pixel.tau - pixel.tauOther)
    + ((p - pixel.q) * (1 + 1 / pixel.others)) / softness;
  return rootOf(rising, Math.max(0, pixel.q - radius), Math.min(1, pixel.q + radius));
}

// The confidence at the minimum of each loss over all logits; 1 where the logits run to infinity.
function minima(pixel, options) {
  const { gamma, margin, smoothing, penalty_weight: weight, penalty, delta } = options, c = weight / pixel.classes;
  const gapSlope = (gap) => Math.exp(logProbs(gap, pixel.others)[0]) - pixel.q;
  const hinge = (gap) => (gap > 0 ? pixel.others : -1) * c
    * (Math.abs(gap) > margin ? penaltySlope(Math.abs(gap) - margin, penalty, delta) : 0);
  const atGap = (gap) => Math.exp(logProbs(gap, pixel.others)[0]);
  const focalSlope = (p, share) => share * (gamma * (1 - p) ** (gamma - 1) * Math.log(p) - (1 - p) ** gamma / p);
  const focal = (p) => focalSlope(p, pixel.q) - focalSlope((1 - p) / pixel.others, pixel.qOther);
  return {
    ce: pixel.q,
    label_smoothing: (1 - smoothing) * pixel.q + smoothing / pixel.classes,
    focal: pixel.qOther === 0 ? 1 : rootOf(focal, 1e-12, 1 - 1e-12),
    svls: (pixel.q + pixel.tau) / 2,
    mbls: pixel.qOther === 0 && c === 0 ? 1 : atGap(rootOf((gap) => gapSlope(gap) + hinge(gap), -60, 60 + margin + 1 / Math.max(c, 1e-3))),
    nacl: naclConfidence(pixel, options),
  };
}
