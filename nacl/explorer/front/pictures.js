// Maps of classes and of shares on a canvas, one cell a pixel.

// Okabe and Ito's colours on grey, and a scale from dark blue to yellow: both are told apart by colour-blind eyes.
const CLASSES = ["#d4d4d4", "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442"];
const SCALE = [[0, 32, 77], [64, 76, 107], [124, 123, 120], [188, 175, 111], [255, 234, 70]];

const classColour = (k) => CLASSES[k < CLASSES.length ? k : 1 + ((k - 1) % (CLASSES.length - 1))];
const rgbOf = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

const SHADES = Array.from({ length: 1001 }, (_, thousandth) => {
  const place = (thousandth / 1000) * (SCALE.length - 1), i = Math.min(Math.floor(place), SCALE.length - 2);
  return SCALE[i].map((c, j) => Math.round(c + (SCALE[i + 1][j] - c) * (place - i)));
});
const scaleColour = (share) => SHADES[Math.round(1000 * Math.min(Math.max(share, 0), 1))];

// A canvas in which `paint(colourOf, marks)` draws; its cells are whole pixels of the page where there is room.
function picture(caption, attributes = { role: "img" }) {
  const canvas = element("canvas", attributes), words = element("figcaption", {}, caption);
  const small = document.createElement("canvas");
  const figure = element("figure", {}, canvas, words);
  return {
    figure, canvas, words,
    paint({ height, width }, colourOf, marks = () => {}) {
      [small.width, small.height] = [width, height];
      const context = small.getContext("2d"), image = context.createImageData(width, height);
      for (let i = 0; i < width * height; i++) {
        const colour = colourOf(i);
        for (let j = 0; j < 3; j++) image.data[4 * i + j] = colour[j];
        image.data[4 * i + 3] = 255;
      }
      context.putImageData(image, 0, 0);
      const cell = Math.max(2, Math.floor(480 / Math.max(height, width)));
      [canvas.width, canvas.height] = [width * cell, height * cell];
      canvas.style.width = `${Math.min(100, (100 * width) / height)}%`; // a tall map is no longer than a square one
      const large = canvas.getContext("2d");
      large.imageSmoothingEnabled = false;
      large.drawImage(small, 0, 0, canvas.width, canvas.height);
      marks(large, cell);
    },
    // The row and column that a pointer is over.
    place({ height, width }, event) {
      const box = canvas.getBoundingClientRect();
      const at = (along, size, count) => Math.min(Math.max(Math.floor((along / size) * count), 0), count - 1);
      return [at(event.clientY - box.top, box.height, height), at(event.clientX - box.left, box.width, width)];
    },
  };
}

function outline(context, cell, [row, column], radius, { height, width }) {
  const first = (place) => Math.max(place - radius, 0), last = (place, size) => Math.min(place + radius + 1, size);
  const box = (r) => [first(column), first(row), last(column, width) - first(column), last(row, height) - first(row)].map((v) => v * cell);
  for (const [colour, line] of [["#ffffff", 5], ["#000000", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(...box(radius));
    context.strokeRect(column * cell, row * cell, cell, cell);
  }
}

// Lines between pixels whose labels differ.
function borders(context, cell, { height, width, labels }) {
  context.strokeStyle = "#ffffff";
  context.lineWidth = 1.5;
  context.beginPath();
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++) {
      const here = row * width + column;
      if (column + 1 < width && labels[here] !== labels[here + 1]) {
        context.moveTo((column + 1) * cell, row * cell);
        context.lineTo((column + 1) * cell, (row + 1) * cell);
      }
      if (row + 1 < height && labels[here] !== labels[here + width]) {
        context.moveTo(column * cell, (row + 1) * cell);
        context.lineTo((column + 1) * cell, (row + 1) * cell);
      }
    }
  context.stroke();
}

// The scale of colours with its two ends.
function scaleBar(low, high) {
  const stopsOf = SCALE.map((c, i) => `rgb(${c}) ${(100 * i) / (SCALE.length - 1)}%`).join(", ");
  const ramp = element("span", { class: "nacl-ramp", style: `background: linear-gradient(to right, ${stopsOf})` });
  return element("div", { class: "nacl-legend" }, element("span", {}, low), ramp, element("span", {}, high));
}
