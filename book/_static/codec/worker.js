"use strict";
// A file's way, from pixels to bytes and from bytes to pixels, and the worker that goes it.

function dgmlCodec(engine, model, coder, tell = () => {}) {
  const entropy = dgmlEntropy(engine, model);
  const transforms = dgmlTransforms(engine, model);
  const up = (side) => Math.ceil(side / 64) * 64;
  const empty = engine.mark();

  function timed(stage, work) {
    tell({ stage });
    const start = performance.now();
    const result = work();
    tell({ stage, ms: performance.now() - start });
    return result;
  }

  // CRC-32 of a file's start and of y_hat as int32, channel by channel.
  function checksum(start, y) {
    const latents = new Int32Array(y.c * y.h * y.w);
    for (let c = 0, i = 0; c < y.c; c++) for (const value of engine.plane(y, c)) latents[i++] = value;
    return coder.crc32(start, new Uint8Array(latents.buffer));
  }

  // The picture as a tensor: its last row and column are repeated until the sides are multiples of 64.
  function padded({ width, height, data }) {
    const x = engine.tensor(up(height), up(width), 4);
    for (let row = 0; row < x.h; row++)
      for (let column = 0; column < x.w; column++) {
        const from = 4 * (Math.min(row, height - 1) * width + Math.min(column, width - 1));
        const to = engine.place(x, row, column) / 4;
        for (let c = 0; c < 3; c++) engine.f32[to + c] = data[from + c] / 255;
      }
    return x;
  }

  // The file of a picture { width, height, data }, data as a canvas has it.
  function encode(picture, quality) {
    engine.release(empty);
    const y = timed("g_a", () => transforms.analysis(padded(picture)));
    const z = timed("h_a", () => transforms.hyperAnalysis(y));
    const { code, finish } = coder.encoder();
    const start = coder.start(quality, picture.height, picture.width, model.fingerprint);
    return timed("entropy coding", () => {
      const coded = entropy.through(up(picture.height), up(picture.width), code, { y, z });
      return coder.write(start, checksum(start, coded.y), finish());
    });
  }

  // The integers of a file, as tensors of 64-bit floats; trace(row, column, scalesAndMeans) sees each position.
  function latents(header, options) {
    engine.release(empty);
    const decoded = entropy.through(up(header.height), up(header.width), coder.decoder(header.words), options);
    if (checksum(header.start, decoded.y) !== header.checksum)
      throw new Error("The decoded latents are not those that were encoded: a damaged file, or a faulty decoder.");
    return decoded;
  }

  // The picture of a file's fields, and the map of its bits (h, w), one value for 16x16 pixels.
  function decode(header) {
    const [h, w] = [up(header.height) / 16, up(header.width) / 16];
    const map = new Float32Array(h * w);
    const onFront = (front) => {
      front.positions.forEach(([row, column], i) => { map[row * w + column] = front.bits[i]; });
      tell({ front, h, w });
    };
    const { y, sideBits } = timed("entropy decoding", () => latents(header, { onFront }));
    return timed("g_s", () => {
      const yHat = engine.tensor(h, w, model.M);
      for (let row = 0; row < h; row++) {
        const [to, from] = [engine.place(yHat, row, 0) / 4, engine.place(y, row, 0) / 8];
        for (let i = 0; i < w * model.M; i++) engine.f32[to + i] = engine.f64[from + i] / 1024;
      }
      const x = transforms.synthesis(yHat);
      const { width, height } = header;
      const data = new Uint8ClampedArray(4 * width * height); // which rounds, ties to even, and clamps
      for (let row = 0; row < height; row++)
        for (let i = 0, at = engine.place(x, row, 0) / 4; i < 4 * width; i++) data[4 * width * row + i] = Math.fround(255 * engine.f32[at + i]);
      return { width, height, data, map, h, w, sideBits };
    });
  }

  return { encode, decode, latents };
}

// What runs in the worker.  A message has the job's number, the weights where they are new, and a picture or a file.
function dgmlWorker() {
  const coder = dgmlCoder();
  let codec = null;
  let queue = Promise.resolve();
  self.onmessage = ({ data }) => { queue = queue.then(() => answer(data)); };

  async function answer({ job, kernel, quality, weights, picture, file }) {
    const tell = (told) => self.postMessage({ job, ...told });
    const times = [];
    try {
      if (weights) {
        codec = null; // its memory goes before the next is made
        tell({ stage: "unpacking the weights" });
        const engine = dgmlEngine(kernel);
        codec = { engine, of: dgmlCodec(engine, await dgmlModel(engine, weights.text, weights.length), coder, (told) => codec.tell(told)) };
      }
      codec.tell = (told) => { if ("ms" in told) times.push([told.stage, told.ms]); else tell(told); };
      const bytes = file ?? codec.of.encode(picture, quality);
      const decoded = codec.of.decode(coder.read(bytes));
      tell({ done: { ...decoded, file: bytes, psnr: picture ? psnr(picture.data, decoded.data) : null, times, fast: codec.engine.fast } });
    } catch (error) {
      tell({ error: error instanceof RangeError ? "The browser has not enough memory for a picture of this size." : error.message });
    }
  }

  function psnr(a, b) {
    let sum = 0;
    for (let i = 0; i < a.length; i++) if (i % 4 < 3) sum += (a[i] - b[i]) ** 2; // without alpha
    return 10 * Math.log10(255 ** 2 / (sum / (0.75 * a.length)));
  }
}
