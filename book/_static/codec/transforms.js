"use strict";
// g_a, h_a and g_s of cheng2020-anchor in 32-bit floats, channels last (book/format.md).

function dgmlTransforms(engine, { layers, N, M }) {
  const LEAKY = { slope: 0.01 };

  const conv = (name, x, out, options) => engine.convolve(layers[name], x, out, options);
  // A convolution and a pixel shuffle, which doubles both sides.
  function up(name, x, out, options) {
    for (const line of [0, 1]) engine.convolve(layers[`${name}.${line}`], x, out, { ...options, up: 2, line });
    return out;
  }

  // GDN, or its inverse, of x in place, plus another tensor: x / sqrt(beta + gamma x^2), or x * sqrt(...).
  function gdn(name, x, inverse, other) {
    const mark = engine.mark();
    const { weight, bias } = layers[name];
    const squares = engine.tensor(1, x.w, x.c, 4, 0), norms = engine.tensor(1, x.w, x.c, 4, 0);
    const v = engine.f32;
    const n = x.w * x.c, [square, norm] = [squares.at / 4, norms.at / 4];
    for (let row = 0; row < x.h; row++) {
      const at = engine.place(x, row, 0) / 4, add = engine.place(other, row, 0) / 4;
      for (let i = 0; i < n; i++) v[square + i] = v[at + i] * v[at + i];
      engine.rows(4, squares.at, 0, x.step, 1, x.step, weight, x.c / 8, bias, 0, norms.at, x.step, x.w, 1, 0);
      for (let i = 0; i < n; i++) {
        const root = Math.sqrt(v[norm + i]);
        v[at + i] = (inverse ? v[at + i] * root : v[at + i] / root) + v[add + i];
      }
    }
    engine.release(mark);
  }

  function residualBlock(name, x) { // in place
    const mark = engine.mark();
    const inner = conv(`${name}.conv1`, x, engine.tensor(x.h, x.w, x.c), LEAKY);
    conv(`${name}.conv2`, inner, x, { ...LEAKY, add: x });
    engine.release(mark);
  }

  function downBlock(name, x) {
    const [h, w] = [x.h / 2, x.w / 2];
    const out = engine.tensor(h, w, N), mark = engine.mark();
    const other = conv(`${name}.conv1`, x, engine.tensor(h, w, N), { ...LEAKY, stride: 2 });
    conv(`${name}.conv2`, other, out);
    gdn(`${name}.gdn`, out, false, conv(`${name}.skip`, x, other, { stride: 2 }));
    engine.release(mark);
    return out;
  }

  function upBlock(name, x) {
    const [h, w] = [2 * x.h, 2 * x.w];
    const out = engine.tensor(h, w, N), mark = engine.mark();
    const other = up(`${name}.subpel_conv.0`, x, engine.tensor(h, w, N), LEAKY);
    conv(`${name}.conv`, other, out);
    gdn(`${name}.igdn`, out, true, up(`${name}.upsample.0`, x, other));
    engine.release(mark);
    return out;
  }

  // A picture (H, W, 4), red to alpha in [0, 1], its sides multiples of 64, to y (H/16, W/16, M).
  function analysis(x) {
    for (const i of [0, 2, 4]) {
      x = downBlock(`g_a.${i}`, x);
      residualBlock(`g_a.${i + 1}`, x);
    }
    return conv("g_a.6", x, engine.tensor(x.h / 2, x.w / 2, M), { stride: 2 });
  }

  // y to z (H/64, W/64, N).
  function hyperAnalysis(y) {
    let x = y;
    for (const [i, stride] of [[0, 1], [2, 1], [4, 2], [6, 1], [8, 2]]) {
      const out = engine.tensor(x.h / stride, x.w / stride, N);
      x = conv(`h_a.${i}`, x, out, { stride, slope: i < 8 ? 0.01 : 1 });
    }
    return x;
  }

  // y_hat / 2^10 to a picture (H, W, 4); y itself is overwritten.
  function synthesis(x) {
    residualBlock("g_s.0", x);
    for (const i of [1, 3, 5]) {
      x = upBlock(`g_s.${i}`, x);
      residualBlock(`g_s.${i + 1}`, x);
    }
    return up("g_s.7.0", x, engine.tensor(2 * x.h, 2 * x.w, 4));
  }

  return { analysis, hyperAnalysis, synthesis };
}
