"use strict";
// The page codec.md: what the reader chooses goes to the worker, what comes back is shown.

const dgmlPage = (() => {
  const here = document.currentScript.src;
  const ENCODED = 2 ** 20, DECODED = 2 ** 22, SIDE = 16384; // pixels at most; a larger photograph is scaled
  const $ = (name) => document.getElementById(`codec-${name}`);
  const { kernel, qualities } = dgmlBuilt;
  const loaded = {}; // weights by quality
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const count = (n) => n.toLocaleString("en");
  const coder = dgmlCoder();
  let job = 0; // the number of the last one; what belongs to an earlier one is ignored
  let source = null; // the photograph that another quality encodes anew
  let worker = null, workersQuality = 0, working = false;
  let map = null; // the bits of each position, and what is drawn of them

  // ---------------------------------------------------------------- scripts, the worker

  function load(name) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(name, here);
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${name} could not be loaded: is the connection lost?`));
      document.head.append(script);
    });
  }
  window.dgmlWeights = (quality, length, text) => { loaded[quality] = { length, text }; };
  window.dgmlSample = (base64) => { loaded.sample = bytesOf(base64); };

  const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

  function startWorker() {
    const parts = [dgmlEngine, dgmlModel, dgmlCoder, dgmlEntropy, dgmlTransforms, dgmlCodec, dgmlWorker];
    const text = `"use strict";\n${parts.join("\n")}\ndgmlWorker();`;
    worker = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
    worker.onmessage = ({ data }) => {
      if (data.error) workersQuality = 0; // perhaps it has no codec now
      if (data.error || data.done) working = false;
      if (data.job === job) heard(data);
    };
    worker.onerror = (event) => {
      stopWorker();
      fail(new Error(`The worker stopped: ${event.message ?? "this browser does not start one here"}.`));
    };
  }

  function stopWorker() {
    worker?.terminate();
    worker = null;
    workersQuality = 0;
    working = false;
  }

  // ---------------------------------------------------------------- from the reader's choice to the worker

  // Runs a job, which may ask whether another has begun and it should end: what it throws is shown as one sentence.
  async function begin(work) {
    const mine = ++job;
    if (working) stopWorker(); // nobody waits for the earlier job any more
    show("busy", "Reading the file.");
    $("results").hidden = $("rest").hidden = true;
    stopReplay();
    try {
      if (!window.DecompressionStream) throw new Error("This browser is too old for the page: it can't unpack the weights.");
      await work(() => mine !== job);
    } catch (error) {
      if (mine === job) fail(error);
    }
  }

  // A file that was chosen or dropped: a .dgml file begins with its magic, all else should be a picture.
  function open(file) {
    return begin(async (superseded) => {
      const unreadable = () => { throw new Error("This is a folder, or a file that can't be read."); };
      const head = new TextDecoder("latin1").decode(await file.slice(0, 4).arrayBuffer().catch(unreadable));
      if (superseded()) return;
      source = null;
      if (head === "DGML") return decode(new Uint8Array(await file.arrayBuffer()), file.name, superseded);
      source = { blob: file, name: file.name };
      return encode(superseded);
    });
  }

  async function encode(superseded) {
    const { blob, name } = source;
    const quality = Number($("quality").value);
    const picture = await pixels(blob);
    if (superseded()) return;
    await send({ picture, quality, name, ...picture }, superseded);
  }

  async function decode(file, name, superseded) {
    const { quality, width, height, fingerprint } = coder.read(file);
    if (width * height > DECODED || Math.max(width, height) > SIDE)
      throw new Error(`The file has ${width}x${height} pixels, too many for this page: python -m dgml decodes it on the command line.`);
    const known = Object.keys(qualities).find((q) => qualities[q].fingerprint === fingerprint && (!quality || Number(q) === quality));
    if (!known) throw new Error(`The file was written with other weights (quality ${quality}, fingerprint ${fingerprint}) than this page has.`);
    $("quality").value = known;
    await send({ file, quality: Number(known), name, width, height }, superseded);
  }

  let sent = null; // of the last job: name, and what the photograph was before it was scaled

  async function send({ picture, file, quality, name, width, height, native = null }, superseded) {
    if (!loaded[quality]) {
      show("busy", `Loading the weights of quality ${quality}, ${(qualities[quality].bytes / 1e6).toFixed(1)} megabytes.`);
      await load(`q${quality}.js`);
      if (superseded()) return;
    }
    if (!worker) startWorker();
    sent = { name: name.replace(/\.[^.]*$/, "") || "picture", native, quality };
    map = { columns: Math.ceil(width / 16), rows: Math.ceil(height / 16), bits: null, t: -1 };
    $("slider").hidden = !picture;
    (picture ? $("slider") : $("alone")).append($("decoded"));
    if (picture) draw($("original"), picture);
    Object.assign($("decoded"), { width, height });
    $("caption").textContent = picture ? "Left of the handle the original, right of it what was decoded from the file." : "The picture that was decoded from the file.";
    $("results").hidden = false;
    const weights = quality === workersQuality ? null : loaded[quality];
    workersQuality = quality;
    working = true;
    worker.postMessage({ job, kernel: bytesOf(kernel), quality, weights, picture, file });
  }

  // The pixels of a photograph on white, as { width, height, data }, scaled if it has too many.
  async function pixels(blob) {
    const unreadable = () => { throw new Error("This is neither a .dgml file nor a picture that this browser can read."); };
    let bitmap = await createImageBitmap(blob).catch(unreadable);
    if (!canvasIsHonest()) throw new Error("This browser returns noise instead of a picture's pixels (resistFingerprinting): here the page can only decode .dgml files.");
    const native = [bitmap.width, bitmap.height];
    const scale = Math.min(1, Math.sqrt(ENCODED / (native[0] * native[1])), SIDE / Math.max(...native));
    const [width, height] = native.map((side) => Math.max(1, Math.floor(side * scale)));
    if (scale < 1) {
      const large = bitmap; // four bytes a pixel, which wait for nobody to collect them
      bitmap = await createImageBitmap(large, { resizeWidth: width, resizeHeight: height, resizeQuality: "high" }).catch(unreadable);
      large.close();
    }
    const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    const { data } = context.getImageData(0, 0, width, height);
    return { width, height, data, native: scale < 1 ? native : null };
  }

  // Whether a canvas gives back what was put on it.
  function canvasIsHonest() {
    const put = new ImageData(Uint8ClampedArray.from({ length: 4096 }, (_, i) => (i % 4 === 3 ? 255 : i * 37)), 32);
    const context = Object.assign(document.createElement("canvas"), { width: 32, height: 32 }).getContext("2d", { willReadFrequently: true });
    context.putImageData(put, 0, 0);
    const { data } = context.getImageData(0, 0, 32, 32);
    return data.every((value, i) => value === put.data[i]);
  }

  // ---------------------------------------------------------------- from the worker to the page

  function show(state, text) {
    $("status").dataset.state = state;
    $("status").textContent = text;
  }

  function fail(error) {
    $("results").hidden = true;
    show("error", error.message);
  }

  const STAGES = { "unpacking the weights": "Unpacking the weights.", g_a: "Encoding: from pixels to latents.", h_a: null,
    "entropy coding": "Encoding: from latents to bytes.", "entropy decoding": "Decoding: from bytes to latents.", g_s: "Decoding: from latents to pixels." };

  function heard({ stage, front, h, w, done, error }) {
    if (stage && STAGES[stage]) show("busy", STAGES[stage]);
    if (front) heardFront(front, h, w);
    if (error) fail(new Error(error));
    if (done) finished(done);
  }

  // While a file is decoded, its wavefronts appear in the place of the picture.
  function heardFront({ t, positions, bits }, h, w) {
    if (still.matches) return;
    map.bits ??= new Float32Array(h * w);
    map.w = w;
    positions.forEach(([row, column], i) => { map.bits[row * w + column] = bits[i]; });
    map.t = t;
    const mine = map;
    map.frame ??= requestAnimationFrame(() => {
      mine.frame = null;
      if (mine === map && $("rest").hidden) onto($("decoded"), drawn(map.t));
    });
  }

  function onto(canvas, small) {
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(small, 0, 0, 16 * small.width, 16 * small.height);
  }

  function draw(canvas, { width, height, data }) {
    Object.assign(canvas, { width, height }).getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
  }

  // Shows all of a finished job; its state is "done" when both downloads are there.
  async function finished({ width, height, data, file, psnr, times, fast, map: bits, w }) {
    draw($("decoded"), { width, height, data });
    Object.assign(map, { bits, w });
    showMap();
    const bpp = 8 * file.length / (width * height);
    $("facts").textContent = `${file.length} bytes, ${bpp.toFixed(4)} bpp` + (psnr === null ? "" : Number.isFinite(psnr) ? `, ${psnr.toFixed(2)} dB` : ", no error");
    const scaled = sent.native ? `The photograph had ${sent.native.join("x")} pixels, too many for this page: it was scaled to ${width}x${height}. ` : "";
    const header = coder.read(file);
    $("more").textContent = `${scaled}${width}x${height} pixels, quality ${sent.quality}; weights ${header.fingerprint}, checksum of the latents ${header.checksum.toString(16).padStart(8, "0")}.`;
    const rows = times.map(([stage, ms]) => `<tr><th scope="row">${stage}</th><td>${ms.toFixed(0)}</td></tr>`);
    $("times").tBodies[0].innerHTML = rows.join("");
    $("engine").textContent = fast ? "" : "WebAssembly with vectors is off in this browser, so the same sums ran in JavaScript, about twenty times slower.";
    $("rest").hidden = false;
    const mine = job;
    const png = await new Promise((resolve) => $("decoded").toBlob(resolve));
    if (mine !== job) return;
    offer($("file"), new Blob([file]), `${sent.name}.dgml`);
    offer($("png"), png, `${sent.name}.png`);
    $("png").hidden = !canvasIsHonest(); // or it would be noise
    show("done", `Done: ${$("facts").textContent}.`);
  }

  function offer(link, blob, name) {
    URL.revokeObjectURL(link.href);
    link.href = URL.createObjectURL(blob);
    link.download = name;
  }

  // ---------------------------------------------------------------- the map of the bits

  const INFERNO = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
  function colour(value) {
    const at = Math.min(Math.max(value, 0), 1) * (INFERNO.length - 1);
    const i = Math.min(Math.floor(at), INFERNO.length - 2);
    return INFERNO[i].map((from, c) => from + (at - i) * (INFERNO[i + 1][c] - from));
  }

  // The map as a small canvas: positions after the wavefront t are transparent, those of the front are blue.
  function drawn(t = Infinity) {
    const { rows, columns, bits, w } = map;
    map.most = Math.max(bits.slice().sort()[Math.floor(0.99 * (bits.length - 1))], 1);
    const data = new Uint8ClampedArray(4 * rows * columns);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) {
        const its = column + 3 * row;
        const shade = its === t ? [86, 180, 233] : colour(bits[row * w + column] / map.most);
        if (its <= t) data.set([...shade, 255], 4 * (row * columns + column));
      }
    const canvas = document.createElement("canvas");
    draw(canvas, { width: columns, height: rows, data });
    return canvas;
  }

  function showMap(t) {
    const small = drawn(t);
    Object.assign($("map"), { width: 16 * small.width, height: 16 * small.height });
    onto($("map"), small);
    $("scale").textContent = `Black is 0, pale yellow ${(map.most / 256).toFixed(2)} bits per pixel or more.`;
  }

  let timer = null;
  function stopReplay() {
    clearInterval(timer);
    timer = null;
    $("replay").textContent = "Watch the wavefront";
  }

  function replay() {
    if (timer) {
      stopReplay();
      return showMap();
    }
    const last = map.columns - 1 + 3 * (map.rows - 1);
    let t = 0;
    $("replay").textContent = "Stop";
    timer = setInterval(() => {
      showMap(t++);
      if (t <= last + 1) return;
      stopReplay();
      showMap();
    }, Math.max(30, 5000 / last));
  }

  // ---------------------------------------------------------------- what the reader can do

  $("input").addEventListener("change", ({ target }) => { if (target.files.length) open(target.files[0]); });
  $("input").addEventListener("click", ({ target }) => { target.value = ""; }); // the same file again is a choice, too
  $("quality").addEventListener("change", () => { if (source) begin(encode); });
  $("sample").addEventListener("click", () => begin(async (superseded) => {
    if (!loaded.sample) await load("sample.js");
    if (superseded()) return;
    source = { blob: new Blob([loaded.sample]), name: "sample.webp" };
    await encode(superseded);
  }));
  $("replay").addEventListener("click", replay);
  const area = $("area");
  for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault()); // beside the frame
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"])
    area.addEventListener(kind, (event) => {
      event.preventDefault();
      area.classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
    });
  for (const option of $("quality").options) if (qualities[option.value]) option.textContent += ` (${(qualities[option.value].bytes / 1e6).toFixed(1)} MB of weights)`;
  area.querySelectorAll("[disabled]").forEach((control) => { control.disabled = false; });
  return { load, loaded };
})();
