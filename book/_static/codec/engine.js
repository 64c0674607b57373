"use strict";
// Memory, tensors and convolutions.  All heavy sums run in kernel.wat, or without WebAssembly in plain(), its twin.
//
// Every file here is one function that needs nothing around it but the functions it is given: page.js makes the worker
// from their text, because a page opened from disk may not start a worker from a file.

function dgmlEngine(kernelBytes) {
  const BLOCK = 65536; // WebAssembly's memory grows in blocks
  let memory = null;
  let kernels = { 4: plain(4), 8: plain(8) };
  let numbers = new ArrayBuffer(BLOCK);
  let top = 64;
  const engine = { f32: null, f64: null, fast: false, allocate, mark: () => top, release: (mark) => { top = mark; }, tensor, place, rows, convolve, plane };

  try {
    memory = new WebAssembly.Memory({ initial: 1 });
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(kernelBytes), { page: { memory } });
    kernels = { 4: exports.f32, 8: exports.f64 };
    numbers = memory.buffer;
    engine.fast = true;
  } catch {
    memory = null; // no WebAssembly, none with vectors, or a policy against it
  }
  look();

  function look() {
    engine.f32 = new Float32Array(numbers);
    engine.f64 = new Float64Array(numbers);
  }

  // The address of as many bytes, which are zero.  Release(mark) gives back all that came after mark().
  function allocate(bytes) {
    const at = top;
    top = Math.ceil((at + bytes) / 64) * 64;
    if (top > numbers.byteLength) {
      const more = Math.ceil((top - numbers.byteLength) / BLOCK);
      if (memory) {
        memory.grow(more);
        numbers = memory.buffer;
      } else {
        const larger = new ArrayBuffer(numbers.byteLength + more * BLOCK);
        new Uint8Array(larger).set(new Uint8Array(numbers));
        numbers = larger;
      }
      look();
    }
    new Uint8Array(numbers, at, bytes).fill(0);
    return at;
  }

  // (h, w, c) numbers of 4 or 8 bytes, channels last, with a border of zeros.
  function tensor(h, w, c, bytes = 4, border = 1) {
    const step = c * bytes;
    const row = (w + 2 * border) * step;
    return { h, w, c, bytes, border, step, row, at: allocate((h + 2 * border) * row) };
  }

  function place(x, row, column) {
    return x.at + (row + x.border) * x.row + (column + x.border) * x.step;
  }

  // One row of a convolution; the arguments are those of kernel.wat.
  function rows(bytes, ...args) {
    kernels[bytes](...args);
  }

  // A 3x3 or 1x1 convolution of x into out, then LeakyReLU with a slope, then the sum with another tensor.
  // With up = 2 the outputs are those of two neighbours in the rows line, line + 2, ... of out: half a pixel shuffle.
  function convolve(layer, x, out, { stride = 1, slope = 1, add = null, up = 1, line = 0 } = {}) {
    const side = layer.size === layer.outputs * x.c ? 1 : 3;
    for (let row = 0; row < out.h / up; row++) {
      const to = up * row + line;
      const corner = place(x, row * stride - (side >> 1), -(side >> 1));
      rows(x.bytes, corner, x.row, stride * x.step, side, side * x.step, layer.weight, layer.outputs * x.bytes / 32,
        layer.bias, 0, place(out, to, 0), up * out.step, out.w / up, slope, add ? place(add, to, 0) : 0);
    }
    return out;
  }

  // Channel c of a tensor, row by row.
  function* plane(x, c) {
    const view = x.bytes === 4 ? engine.f32 : engine.f64;
    for (let row = 0; row < x.h; row++)
      for (let column = 0; column < x.w; column++) yield view[place(x, row, column) / x.bytes + c];
  }

  // What kernel.wat does, in JavaScript: four outputs at once, in local variables.
  function plain(bytes) {
    const lanes = 32 / bytes;
    return (input, inputRow, inputStep, rows, run, weights, groups, init, initStep, out, outStep, n, slope, add) => {
      const v = bytes === 4 ? engine.f32 : engine.f64;
      const weight = engine.f32;
      const length = run / bytes;
      for (let lane = 0; lane < groups * lanes; lane += 4)
        for (let i = 0; i < n; i++) {
          const start = (init + i * initStep) / bytes + lane;
          let s0 = v[start], s1 = v[start + 1], s2 = v[start + 2], s3 = v[start + 3];
          let w = weights / 4 + (lane - lane % lanes) * rows * length + lane % lanes;
          for (let row = 0; row < rows; row++) {
            const first = (input + row * inputRow + i * inputStep) / bytes;
            for (let k = first; k < first + length; k++, w += lanes) {
              const x = v[k];
              s0 += x * weight[w]; s1 += x * weight[w + 1]; s2 += x * weight[w + 2]; s3 += x * weight[w + 3];
            }
          }
          const to = (out + i * outStep) / bytes + lane, other = (add + i * outStep) / bytes + lane;
          [s0, s1, s2, s3].forEach((s, l) => { v[to + l] = Math.max(s, s * slope) + (add ? v[other + l] : 0); });
        }
    };
  }
  return engine;
}

// The weights and tables of a quality, from the text of its script (book/_ext/codec_page.py, packed and as_characters).
async function dgmlModel(engine, text, length) {
  const packed = new Uint8Array(length);
  for (let i = 0, at = 0, bits = 0, held = 0; at < length; i++) {
    held = ((held & 127) << 15) | (text.charCodeAt(i) - 0x5000);
    for (bits += 15; bits >= 8 && at < length; at++) packed[at] = held >> (bits -= 8);
  }
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = new Uint8Array(await new Response(stream).arrayBuffer());
  const start = 4 + new DataView(data.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(data.subarray(4, start)));
  const count = (data.length - start) / 2;
  const words = new Uint16Array(count);
  for (let i = 0; i < count; i++) words[i] = data[start + i] | (data[start + count + i] << 8);
  const half = Float32Array.from({ length: 65536 }, (_, h) => {
    const exponent = (h >> 10) & 31;
    const size = exponent ? 2 ** (exponent - 15) * (1 + (h & 1023) / 1024) : 2 ** -24 * (h & 1023);
    return h >> 15 ? -size : size;
  });
  const model = { ...header, layers: {}, tables: {} };
  const read = { i2: (some) => new Int16Array(some.buffer), f2: (some) => Float32Array.from(some, (h) => half[h]), f4: (some) => new Float32Array(some.buffer) };
  let at = 0;
  for (const [name, size, stored, use] of header.arrays) {
    const array = read[stored](words.slice(at, (at += stored === "f4" ? 2 * size : size)));
    if (use === "table") {
      model.tables[name] = array;
      continue;
    }
    const address = engine.allocate(size * (use === "f64" ? 8 : 4));
    engine[use].set(array, address / (use === "f64" ? 8 : 4));
    const [, layer, kind] = name.match(/(.*)\.(\w+)/);
    model.layers[layer] ??= {};
    model.layers[layer][kind] = address;
    model.layers[layer][kind === "weight" ? "size" : "outputs"] = size;
  }
  return model;
}
