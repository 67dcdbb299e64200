"use strict";

const data = JSON.parse(document.getElementById("report-data").textContent);

function compareCells(first, second, direction) {
  const a = first.dataset.value, b = second.dataset.value;
  if (a === "" || b === "") return (a === "") - (b === ""); // an absent class stays below, whatever the direction
  return direction * (Number(a) - Number(b));
}

function sortTable(button) {
  const header = button.closest("th"), table = button.closest("table"), body = table.tBodies[0];
  const column = Number(button.dataset.column);
  const current = header.getAttribute("aria-sort");
  const first = column === 0 ? "ascending" : "descending";
  const second = column === 0 ? "descending" : "ascending";
  const next = current === first ? second : first;
  for (const cell of table.tHead.rows[0].cells) cell.setAttribute("aria-sort", cell === header ? next : "none");
  const direction = next === "ascending" ? 1 : -1;
  const rows = [...body.rows].sort((a, b) => compareCells(a.cells[column], b.cells[column], direction));
  body.append(...rows);
}

for (const button of document.querySelectorAll("#class-table thead button")) {
  button.addEventListener("click", () => sortTable(button));
}

const ids = new Map(data.colors.map(([red, green, blue], index) => [(red << 16) | (green << 8) | blue, index]));
const originals = new Map(); // image -> its address, pixels and class ids as the file has them

function readLayer(image) {
  if (originals.has(image)) return originals.get(image);
  const canvas = document.createElement("canvas");
  const [width, height] = [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data, classes = new Int32Array(width * height);
  let before = -1, id = -1;
  for (let position = 0, i = 0; position < classes.length; position++, i += 4) {
    const color = (pixels[i] << 16) | (pixels[i + 1] << 8) | pixels[i + 2];
    if (pixels[i + 3] === 0) { // left transparent; its colour is needed where it is shown alone
      classes[position] = data.background;
      pixels.set([...data.colors[data.background], 255], i);
      continue;
    }
    if (color !== before) [before, id] = [color, ids.get(color) ?? -1]; // -1: the hatching of ignored pixels
    classes[position] = id;
  }
  originals.set(image, { address: image.src, width, height, pixels, classes });
  return originals.get(image);
}

function nameClasses(stage, pointed) {
  const point = (event) => {
    const box = stage.getBoundingClientRect();
    const found = ["truth", "prediction"].map((layer) => {
      const { width, height, classes } = readLayer(stage.querySelector(`.${layer}`));
      const scale = Math.min(box.width / width, box.height / height); // object-fit: contain
      const x = (event.clientX - box.left - box.width / 2) / scale + width / 2;
      const y = (event.clientY - box.top - box.height / 2) / scale + height / 2;
      if (x < 0 || y < 0 || x >= width || y >= height) return null;
      return `${layer}: ${data.names[classes[Math.floor(y) * width + Math.floor(x)]] ?? "ignored"}`;
    });
    pointed.textContent = found.includes(null) ? "" : found.join(" · ");
  };
  stage.addEventListener("pointermove", point);
  stage.addEventListener("pointerdown", point);
  stage.addEventListener("pointerleave", () => { pointed.textContent = ""; });
}

function showClasses(image, chosen) {
  const { address, width, height, pixels, classes } = readLayer(image);
  if (!chosen.size) {
    image.src = address;
    return;
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const shown = new Uint8ClampedArray(pixels);
  classes.forEach((id, position) => { if (!chosen.has(id)) shown[4 * position + 3] = 0; });
  canvas.getContext("2d").putImageData(new ImageData(shown, width), 0, 0);
  image.src = canvas.toDataURL();
}

const images = document.getElementById("images");
if (images) {
  for (const radio of images.querySelectorAll("input[name=mode]")) {
    radio.addEventListener("change", () => { images.dataset.mode = radio.value; });
    if (radio.checked) images.dataset.mode = radio.value; // a browser may restore another choice on reload
  }
  const strength = document.getElementById("strength");
  const applyStrength = () => images.style.setProperty("--strength", strength.value / 100);
  strength.addEventListener("input", applyStrength);
  applyStrength();
  for (const cut of images.querySelectorAll(".cut")) {
    const apply = () => cut.parentElement.style.setProperty("--cut", `${cut.value}%`);
    cut.addEventListener("input", apply);
    apply();
  }
  for (const stage of images.querySelectorAll(".stage")) {
    nameClasses(stage, stage.parentElement.querySelector(".pointed"));
  }
  const chosen = new Set();
  for (const button of images.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const id = Number(button.dataset.class);
      if (!chosen.delete(id)) chosen.add(id);
      button.setAttribute("aria-pressed", chosen.has(id));
      button.closest(".legend").classList.toggle("narrowed", chosen.size > 0);
      for (const image of images.querySelectorAll(".truth, .prediction")) showClasses(image, chosen);
    });
  }
  const enlarge = (button, isWide) => {
    button.closest("figure").classList.toggle("wide", isWide);
    button.setAttribute("aria-pressed", isWide);
    button.textContent = isWide ? "Shrink" : "Enlarge";
  };
  for (const button of images.querySelectorAll(".enlarge")) {
    button.addEventListener("click", () => enlarge(button, !button.closest("figure").classList.contains("wide")));
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const button of images.querySelectorAll(".wide .enlarge")) enlarge(button, false);
  });
}

const matrix = document.getElementById("matrix");
if (matrix) {
  const offset = Number(matrix.dataset.offset), side = Number(matrix.dataset.cell);
  const svg = matrix.querySelector("svg"), cursor = svg.querySelector(".cursor");
  const readout = document.getElementById("readout");
  const count = data.names.length;
  let row = -1, column = -1;

  const show = () => {
    const pixels = data.matrix[row][column];
    const total = data.matrix[row].reduce((sum, value) => sum + value, 0);
    const share = total ? `${(100 * pixels / total).toFixed(1)} % of ${data.names[row]}` : `${data.names[row]} does not occur`;
    const what = row === column ? "recognised" : `taken for ${data.names[column]}`;
    readout.textContent = total ? `${share} ${what} (${pixels.toLocaleString("en")} pixels)` : share;
    cursor.setAttribute("x", offset + column * side);
    cursor.setAttribute("y", offset + row * side);
  };

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width; // a narrow page shrinks the matrix
    const x = Math.floor(((event.clientX - box.left) * scale - offset) / side);
    const y = Math.floor(((event.clientY - box.top) * scale - offset) / side);
    if (x < 0 || y < 0 || x >= count || y >= count) return;
    [row, column] = [y, x];
    show();
  });
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  matrix.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    row = Math.min(count - 1, Math.max(0, row + step[0]));
    column = Math.min(count - 1, Math.max(0, column + step[1]));
    show();
    cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
}
