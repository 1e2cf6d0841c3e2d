"use strict";
// Photos are made into what the model saw in training by the same steps as in the program that trained it: the middle of the photo, made
// smaller as Pillow does it (box, then bicubic), brought to the stored pixels by the matrices in `facts`. The rest is inside the model.

const read = (id) => document.getElementById(id).textContent.trim();
const facts = JSON.parse(read("facts"));
const MOST_BYTES = 32 * 2 ** 20;
const MOST_PIXELS = 64e6;

async function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  return bytes;
}

async function unpacked(id) {
  const packed = new Blob([await bytesOf(read(id))]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(packed).arrayBuffer());
}

// The runtime: from this page if it is here, else from where `facts` say, if its bytes are those that were tested.
async function runtimeFile(name) {
  if (document.getElementById(name)) return unpacked(name);
  const { url, integrity } = facts.runtime[name];
  const answer = await fetch(url, { integrity, referrerPolicy: "no-referrer" });
  if (!answer.ok) throw new Error(`The runtime could not be fetched (${answer.status}).`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function openModel() {
  const [script, wasm, model] = await Promise.all([runtimeFile("script"), runtimeFile("wasm"), unpacked("model")]);
  const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const ort = await import(address);
  ort.env.wasm.wasmBinary = wasm.buffer;
  ort.env.wasm.numThreads = 1; // more need headers that a file has not
  ort.env.logLevel = "error";
  return { ort, session: await ort.InferenceSession.create(model, { executionProviders: ["wasm"] }) };
}

// --- Pixels -----------------------------------------------------------------------------------------------------------------------------

async function pixelsOf(file) {
  if (file.size > MOST_BYTES) throw new Error("The file is larger than 32 MiB.");
  let picture;
  try {
    picture = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error("This is not a picture that this browser can read.");
  }
  const { width, height } = picture;
  if (width * height > MOST_PIXELS) throw new Error("The picture has more than 64 million pixels.");
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(picture, 0, 0);
  picture.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    data[to++] = rgba[from];
    data[to++] = rgba[from + 1];
    data[to++] = rgba[from + 2];
  }
  return { width, height, data };
}

function squareOf(image) {
  const few = facts.stored_pixels;
  const side = Math.min(image.width, image.height);
  const left = (image.width - side) >> 1;
  const top = (image.height - side) >> 1;
  const large = Math.min(Math.max(side, few), facts.reduced_from * few);
  const middle = resized(image, { left, top, side }, large);
  return large === few ? middle : reduced(middle, large, few);
}

// Pillow's Image.resize with reducing_gap=3: whole blocks are averaged first, if there are enough of them, then comes the bicubic filter.
function resized(image, box, size) {
  if (box.side === size && image.width === size && image.height === size) return image.data;
  const factor = Math.max(1, Math.floor(box.side / size / 3));
  if (factor > 1) {
    const support = (1.5 * box.side) / size; // `Image._get_safe_box`
    const from = (start) => Math.max(0, Math.floor(start - support));
    const to = (start, most) => Math.min(most, Math.ceil(start + box.side + support));
    const area = { left: from(box.left), top: from(box.top), right: to(box.left, image.width), bottom: to(box.top, image.height) };
    image = blocks(image, area, factor);
    box = { left: (box.left - area.left) / factor, top: (box.top - area.top) / factor, side: box.side / factor };
  }
  const rows = weights(image.height, box.top, box.side, size);
  const columns = weights(image.width, box.left, box.side, size);
  const first = rows[0].from;
  const count = rows[size - 1].from + rows[size - 1].values.length - first;
  const across = new Uint8Array(3 * size * count);
  for (let y = 0; y < count; y++) {
    for (let x = 0; x < size; x++) {
      const { from, values } = columns[x];
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        let at = 3 * ((first + y) * image.width + from) + c;
        for (const value of values) { sum += value * image.data[at]; at += 3; }
        across[3 * (y * size + x) + c] = grey(sum);
      }
    }
  }
  const square = new Uint8Array(3 * size * size);
  for (let y = 0; y < size; y++) {
    const { from, values } = rows[y];
    for (let at = 0; at < 3 * size; at++) {
      let sum = 0;
      let place = 3 * size * (from - first) + at;
      for (const value of values) { sum += value * across[place]; place += 3 * size; }
      square[3 * size * y + at] = grey(sum);
    }
  }
  return square;
}

const grey = (value) => Math.min(255, Math.max(0, Math.floor(value + 0.5)));

function blocks(image, area, factor) {
  const width = Math.ceil((area.right - area.left) / factor);
  const height = Math.ceil((area.bottom - area.top) / factor);
  const data = new Uint8Array(3 * width * height);
  for (let y = 0; y < height; y++) {
    const bottom = Math.min(area.bottom, area.top + (y + 1) * factor);
    for (let x = 0; x < width; x++) {
      const right = Math.min(area.right, area.left + (x + 1) * factor);
      const top = area.top + y * factor;
      const left = area.left + x * factor;
      const count = (bottom - top) * (right - left);
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let row = top; row < bottom; row++) {
          for (let at = 3 * (row * image.width + left) + c; at < 3 * (row * image.width + right); at += 3) sum += image.data[at];
        }
        data[3 * (y * width + x) + c] = Math.floor((sum + count / 2) / count);
      }
    }
  }
  return { width, height, data };
}

// Of each of `size` outputs, which inputs it takes and how much of each.
function weights(count, start, side, size) {
  const scale = side / size;
  const widened = Math.max(1, scale);
  const support = 2 * widened;
  const found = [];
  for (let place = 0; place < size; place++) {
    const centre = start + (place + 0.5) * scale;
    const from = Math.max(0, Math.floor(centre - support + 0.5));
    const to = Math.min(count, Math.floor(centre + support + 0.5));
    const values = [];
    for (let at = from; at < to; at++) values.push(bicubic((at - centre + 0.5) / widened));
    const sum = values.reduce((total, value) => total + value, 0);
    found.push({ from, values: values.map((value) => value / sum) });
  }
  return found;
}

function bicubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// The least-squares inverse of enlarging: rows, then columns.
function reduced(square, large, few) {
  const matrix = facts.reducers[String(large)];
  const across = new Float32Array(3 * few * large);
  for (let y = 0; y < few; y++) {
    for (let from = 0; from < large; from++) {
      const value = matrix[y * large + from];
      for (let at = 0; at < 3 * large; at++) across[3 * large * y + at] += value * square[3 * large * from + at];
    }
  }
  const small = new Uint8Array(3 * few * few);
  for (let y = 0; y < few; y++) {
    for (let x = 0; x < few; x++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let from = 0; from < large; from++) sum += matrix[x * large + from] * across[3 * (large * y + from) + c];
        small[3 * (few * y + x) + c] = Math.min(255, Math.max(0, Math.round(sum)));
      }
    }
  }
  return small;
}

// --- Answers ----------------------------------------------------------------------------------------------------------------------------

async function answer(model, square) {
  const few = facts.stored_pixels;
  const pixels = new model.ort.Tensor("uint8", square, [1, few, few, 3]);
  const { probabilities } = await model.session.run({ pixels });
  return Array.from(probabilities.data, (share, place) => ({ name: facts.classes[place], share }))
    .sort((one, other) => other.share - one.share)
    .slice(0, 5);
}

const element = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });

function card(file) {
  const item = element("li", "");
  item.append(Object.assign(element("p", "name", file.name), { title: file.name }));
  document.getElementById("answers").prepend(item);
  return item;
}

function show(item, file, square, likeliest) {
  const pictures = element("div", "pictures");
  const photo = Object.assign(element("img", "photo"), { src: URL.createObjectURL(file), alt: "" });
  const seen = Object.assign(element("canvas", "seen"), { width: facts.stored_pixels, height: facts.stored_pixels });
  const context = seen.getContext("2d");
  const rgba = context.createImageData(seen.width, seen.height);
  for (let at = 0; at < square.length / 3; at++) rgba.data.set([square[3 * at], square[3 * at + 1], square[3 * at + 2], 255], 4 * at);
  context.putImageData(rgba, 0, 0);
  const figure = element("figure", "");
  figure.append(seen, element("figcaption", "", "what it sees"));
  pictures.append(photo, figure);
  item.append(pictures);
  for (const { name, share } of likeliest) {
    const line = element("div", "class");
    const label = Object.assign(element("span", "", name), { title: name });
    const meter = Object.assign(element("meter", ""), { value: share, max: 1 });
    line.append(label, meter, element("span", "share", `${(100 * share).toFixed(1)} %`));
    item.append(line);
  }
}

async function take(model, files) {
  for (const file of files) {
    const item = card(file);
    try {
      const square = squareOf(await pixelsOf(file));
      show(item, file, square, await answer(model, square));
    } catch (error) {
      item.append(element("p", "problem", error.message));
    }
  }
}

async function start() {
  const status = document.getElementById("status");
  const drop = document.getElementById("drop");
  const input = document.getElementById("file");
  const opening = openModel();
  const hand = async (files) => take(await opening, [...files]);
  input.addEventListener("change", () => { hand(input.files); });
  drop.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") input.click(); });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") hand(event.dataTransfer.files);
    });
  }
  document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) hand(event.clipboardData.files); });
  try {
    await opening;
    status.textContent = "Ready.";
  } catch (error) {
    status.className = "problem";
    status.textContent = `The model could not be loaded: ${error.message}`;
  }
}

start();
