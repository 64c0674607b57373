"use strict";
// The exact entropy model and the wavefront scan, as in dgml/entropy.py (book/format.md).

function dgmlEntropy(engine, model) {
  const { layers, tables, N, M } = model;
  const ONE = 1024, LIMIT = 2 ** 26, SLOPE = 0.01;
  const Z_RANGE = 127, Y_RANGE = 511;
  const UNIT = 2 ** 24;
  const { thresholds, medians } = tables;

  // A table's borders: symbol i has those from left[i] up to left[i + 1].
  function borders(frequencies) {
    const left = new Float64Array(frequencies.length + 1);
    frequencies.forEach((f, i) => { left[i + 1] = left[i] + f; });
    return left;
  }
  const zModels = Array.from({ length: N }, (_, c) => borders(tables.z.subarray(255 * c, 255 * (c + 1))));
  const yModels = Array.from({ length: 128 }, (_, row) => {
    const half = tables.frequencies.subarray(512 * row, 512 * (row + 1));
    return borders(Float64Array.from({ length: 1023 }, (_, s) => half[Math.abs(s - Y_RANGE)]));
  });

  // ---------------------------------------------------------------- the exact layers

  // Sums of a layer, in units of 2^-24, to the next layer's input, in units of 2^-10.
  function requantize(at, n) {
    const v = engine.f64;
    for (let i = at / 8; i < at / 8 + n; i++)
      v[i] = Math.min(Math.max(Math.floor(v[i] * 2 ** -14 + 0.5), -LIMIT), LIMIT);
  }

  function exact(name, x, out, slope) {
    if (layers[name]) engine.convolve(layers[name], x, out, { slope });
    else for (const line of [0, 1]) engine.convolve(layers[`${name}.${line}`], x, out, { slope, up: 2, line });
    requantize(out.at, (out.h + 2) * out.row / 8);
    return out;
  }

  // h_s: z_hat (h, w, N) to (4h, 4w, 2M).
  function hyperSynthesis(zHat) {
    const { h, w } = zHat;
    const widths = [zHat.c, layers["h_s.2.0"].outputs / 2, layers["h_s.4"].outputs, layers["h_s.6.0"].outputs / 2];
    let a = exact("h_s.0", zHat, engine.tensor(h, w, widths[0], 8), SLOPE);
    a = exact("h_s.2", a, engine.tensor(2 * h, 2 * w, widths[1], 8), SLOPE);
    a = exact("h_s.4", a, engine.tensor(2 * h, 2 * w, widths[2], 8), SLOPE);
    a = exact("h_s.6", a, engine.tensor(4 * h, 4 * w, widths[3], 8), SLOPE);
    return exact("h_s.8", a, engine.tensor(4 * h, 4 * w, 2 * M, 8), 1);
  }

  // ---------------------------------------------------------------- the wavefront scan over y

  // Visits y wavefront by wavefront and returns y_hat (h, w, M).  symbolsAt(front) has the addresses of the front's means
  // and scales, position by position, and gives the symbols in that order.
  function wavefrontScan(zHat, symbolsAt, trace = null) {
    const hyper = hyperSynthesis(zHat);
    const { h, w } = hyper;
    const fromZ = engine.convolve(layers["parameters.from_z"], hyper, engine.tensor(h, w, layers["parameters.from_z"].outputs, 8));
    const y = engine.tensor(h, w, M, 8, 2);
    const longest = Math.min(h, Math.ceil(w / 3));
    const scratch = (width) => engine.tensor(1, longest, width, 8, 0);
    const context = scratch(2 * M);
    const [first, second, third] = ["0", "2", "4"].map((i) => layers[`parameters.${i}`]);
    const [a, b, both] = [first, second, third].map((layer) => scratch(layer.outputs));
    const above = layers["context.above"], beside = layers["context.beside"]; // the taps of the rows above, and two
    const step = y.row - 3 * y.step; // from a position of a front to the next: one row down, three columns back
    const v = engine.f64;

    function dense(layer, x, init, initStep, out, n, slope) {
      engine.rows(8, x.at, 0, x.step, 1, x.step, layer.weight, layer.outputs / 4, init, initStep, out.at, out.step, n, slope, 0);
      requantize(out.at, n * out.c);
    }

    for (let t = 0; t < w + 3 * (h - 1); t++) {
      const top = Math.max(0, Math.ceil((t - w + 1) / 3));
      const n = Math.min(h - 1, Math.floor(t / 3)) - top + 1;
      if (n < 1) continue; // a narrow picture skips some
      const corner = engine.place(y, top - 2, t - 3 * top - 2);
      engine.rows(8, corner, y.row, step, 2, 5 * y.step, above.weight, M / 2, above.bias, 0, context.at, context.step, n, 1, 0);
      engine.rows(8, corner + 2 * y.row, 0, step, 1, 2 * y.step, beside.weight, M / 2, context.at, context.step, context.at, context.step, n, 1, 0);
      requantize(context.at, n * context.c);
      dense(first, context, engine.place(fromZ, top, t - 3 * top), fromZ.row - 3 * fromZ.step, a, n, SLOPE);
      dense(second, a, second.bias, 0, b, n, SLOPE);
      dense(third, b, third.bias, 0, both, n, 1);
      const front = { t, n, positions: Array.from({ length: n }, (_, i) => [top + i, t - 3 * (top + i)]), scales: both.at / 8, means: both.at / 8 + M, step: 2 * M };
      const symbols = symbolsAt(front);
      front.positions.forEach(([row, column], i) => {
        const to = engine.place(y, row, column) / 8;
        for (let c = 0; c < M; c++) v[to + c] = symbols[i * M + c] * ONE + v[front.means + i * front.step + c];
        trace?.(row, column, v.slice(front.scales + i * front.step, front.scales + (i + 1) * front.step));
      });
    }
    return { hyper, y };
  }

  // The order of a front's symbols in the stream: by the row of the table that belongs to their scale.
  function byScale({ n, scales, step }) {
    const v = engine.f64;
    const rowOf = new Uint8Array(n * M);
    const starts = new Uint32Array(129);
    for (let i = 0; i < n; i++)
      for (let c = 0; c < M; c++) {
        const scale = v[scales + i * step + c];
        let low = 0, high = 127;
        while (low < high) {
          const middle = (low + high) >> 1;
          if (thresholds[middle] <= scale) low = middle + 1;
          else high = middle;
        }
        rowOf[i * M + c] = low;
        starts[low + 1]++;
      }
    for (let row = 0; row < 128; row++) starts[row + 1] += starts[row];
    const order = new Uint32Array(n * M);
    for (let i = 0; i < n * M; i++) order[starts[rowOf[i]]++] = i;
    return { order, rowOf };
  }

  // Goes through all symbols: codes(left, wanted) codes one with a table and gives it back.  y and z, (h, w, M) and
  // (h, w, N), are the encoder's; a decoder has none.  Tells of each front: its positions and the bits that each took.
  function through(h, w, codes, { y = null, z = null, onFront = () => {}, trace = null } = {}) {
    const zHat = engine.tensor(h / 64, w / 64, Math.ceil(N / 4) * 4, 8);
    const bits = (left, s) => 24 - Math.log2(left[s + 1] - left[s]);
    let sideBits = 0;
    for (let c = 0; c < N; c++)
      for (let row = 0; row < zHat.h; row++)
        for (let column = 0; column < zHat.w; column++) {
          const wanted = z ? clamp(nearest(engine.f32[engine.place(z, row, column) / 4 + c] - medians[c] / ONE), Z_RANGE) : 0;
          const s = codes(zModels[c], wanted + Z_RANGE);
          sideBits += bits(zModels[c], s);
          engine.f64[engine.place(zHat, row, column) / 8 + c] = (s - Z_RANGE) * ONE + medians[c];
        }
    const scanned = wavefrontScan(zHat, (front) => {
      const { order, rowOf } = byScale(front);
      const symbols = new Int16Array(order.length);
      const cost = new Float32Array(front.n);
      for (const i of order) {
        const position = Math.floor(i / M), c = i % M;
        let wanted = 0;
        if (y) {
          const at = engine.place(y, ...front.positions[position]) / 4 + c;
          wanted = clamp(nearest(engine.f32[at] - engine.f64[front.means + position * front.step + c] / ONE), Y_RANGE);
        }
        const left = yModels[rowOf[i]];
        const s = codes(left, wanted + Y_RANGE);
        cost[position] += bits(left, s);
        symbols[i] = s - Y_RANGE;
      }
      onFront({ t: front.t, positions: front.positions, bits: cost });
      return symbols;
    }, trace);
    return { zHat, ...scanned, sideBits };
  }

  const clamp = (value, limit) => Math.min(Math.max(value, -limit), limit);
  // Ties go to the even number, as in IEEE 754: beyond 2^52 there are no fractions.
  const nearest = (value) => value + 1.5 * 2 ** 52 - 1.5 * 2 ** 52;

  return { through, hyperSynthesis };
}
