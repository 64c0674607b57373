"use strict";
// The range coder, which is constriction's, and the container (book/format.md).

function dgmlCoder() {
  const UNIT = 2 ** 24, TOP = 2 ** 40;
  // A number of 64 bits is two: its upper 40 bits, which of the range are also range >> 24, and its lower 24.
  let productHigh, productLow;
  function multiply(unit, factor) { // 40 by 24 bits, exact
    const upper = Math.floor(unit / UNIT);
    const lower = (unit - upper * UNIT) * factor;
    const carry = Math.floor(lower / UNIT);
    productHigh = upper * factor + carry;
    productLow = lower - carry * UNIT;
  }

  // A function that reads the next symbol by a table's borders: symbol i has those from left[i] up to left[i + 1].
  function decoder(words) {
    let next = 2;
    const [first, second] = [words[0] ?? 0, words[1] ?? 0];
    let [high, low] = [first * 256 + (second >>> 24), second % UNIT]; // of point - lower
    let range = TOP - 1; // its upper bits
    return (left) => {
      const quotient = (high * UNIT + low) / range; // may be off by its last digit, next to a border: see below
      let s = 0;
      for (let end = left.length - 1; end - s > 1;) {
        const middle = (s + end) >> 1;
        if (left[middle] <= quotient) s = middle;
        else end = middle;
      }
      for (;;) {
        if (s === left.length - 1) throw new Error("The file is damaged: its stream can't be decoded.");
        multiply(range, left[s]);
        let restHigh = high - productHigh, restLow = low - productLow;
        if (restLow < 0) { restLow += UNIT; restHigh--; }
        multiply(range, left[s + 1] - left[s]);
        if (restHigh < 0) s--;
        else if (restHigh > productHigh || (restHigh === productHigh && restLow >= productLow)) s++;
        else {
          high = restHigh; low = restLow; range = productHigh;
          break;
        }
      }
      if (range < 256) { // below 2^32: both move up by a word
        const word = words[next++] ?? 0;
        range = (range * UNIT + productLow) * 256;
        high = (high * UNIT + low) * 256 + (word >>> 24);
        low = word % UNIT;
      }
      return s;
    };
  }

  // { code(left, s), finish() }: code appends a symbol and gives it back, finish returns the words.
  function encoder() {
    const words = [];
    let high = 0, low = 0; // of lower
    let range = TOP - 1, rangeLow = UNIT - 1;
    function add(moreHigh, moreLow) {
      low += moreLow;
      high += moreHigh + Math.floor(low / UNIT);
      low %= UNIT;
      if (high < TOP) return;
      high -= TOP;
      let i = words.length - 1;
      while (words[i] === 2 ** 32 - 1) words[i--] = 0;
      words[i]++;
    }
    function code(left, s) {
      multiply(range, left[s]);
      add(productHigh, productLow);
      multiply(range, left[s + 1] - left[s]);
      range = productHigh; rangeLow = productLow;
      if (range < 256) {
        words.push(Math.floor(high / 256));
        high = ((high % 256) * UNIT + low) * 256;
        low = 0;
        range = (range * UNIT + rangeLow) * 256; rangeLow = 0;
      }
      return s;
    }
    function finish() { // a word whose every continuation lies in the range, and a zero where one is not enough
      const upper = Math.floor(((high + range + Math.floor((low + rangeLow) / UNIT)) % TOP) / 256);
      add(255, UNIT - 1);
      words.push(Math.floor(high / 256));
      if (words.at(-1) === upper) words.push(0);
      return Uint32Array.from(words);
    }
    return { code, finish };
  }

  // ---------------------------------------------------------------- the container

  const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
    for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
    return byte;
  });
  function crc32(...parts) {
    let crc = -1;
    for (const bytes of parts) for (const byte of bytes) crc = (crc >>> 8) ^ crcTable[(crc ^ byte) & 255];
    return ~crc >>> 0;
  }

  // The fields of a file, in the order of book/format.md's refusals; every error is one sentence.
  function read(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (bytes.length < 4 || view.getUint32(0) !== 0x44474d4c) throw new Error("This is not a .dgml file.");
    if (bytes.length < 22) throw new Error(`The file is cut short: ${bytes.length} bytes, the header alone has 22.`);
    if (bytes[4] !== 1) throw new Error(`The file has version ${bytes[4]} of the format, this page reads version 1.`);
    const stream = bytes.slice(22);
    if (stream.length % 4 || crc32(bytes.subarray(0, 18), stream) !== view.getUint32(18, true))
      throw new Error("The file is damaged or cut short: its checksum does not fit its content.");
    const [height, width] = [view.getUint16(6, true), view.getUint16(8, true)];
    if (!(height * width > 0 && height * width <= 2 ** 27))
      throw new Error(`The file claims ${width}x${height} pixels, which no decoder accepts.`);
    const fingerprint = [...bytes.subarray(10, 14)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const words = Uint32Array.from({ length: stream.length / 4 }, (_, i) => view.getUint32(22 + 4 * i, true));
    return { quality: bytes[5], height, width, fingerprint, checksum: view.getUint32(14, true), start: bytes.slice(0, 14), words };
  }

  // The first 14 bytes of a file.
  function start(quality, height, width, fingerprint) {
    const bytes = new Uint8Array(14);
    bytes.set([0x44, 0x47, 0x4d, 0x4c, 1, quality, height & 255, height >> 8, width & 255, width >> 8]);
    bytes.set(fingerprint.match(/../g).map((digits) => parseInt(digits, 16)), 10);
    return bytes;
  }

  // A whole file from its start, the checksum of its latents and the coder's words.
  function write(start, checksum, words) {
    const bytes = new Uint8Array(22 + 4 * words.length);
    const view = new DataView(bytes.buffer);
    bytes.set(start);
    view.setUint32(14, checksum, true);
    words.forEach((word, i) => view.setUint32(22 + 4 * i, word, true));
    view.setUint32(18, crc32(bytes.subarray(0, 18), bytes.subarray(22)), true);
    return bytes;
  }

  return { decoder, encoder, crc32, read, start, write };
}
