// What pages let one touch (book/_ext/explore.py): a choice of quality that table, pictures and staircase share, the
// wavefront step by step, and the photograph of the front page.
// Without this script they show quality 3, all steps at once, and three pictures side by side.

// A classic script, not a module: those do not load when the book is opened as a file.
const run = new URL("run/", document.currentScript.src);

function codec(part) {
  const radios = [...part.querySelectorAll("input[name=quality]")];
  const original = part.querySelector("#explore-original");
  const decoded = part.querySelector("#explore-decoded");
  const bits = part.querySelector("#explore-bits");
  const points = [...part.querySelectorAll(".point")];
  part.classList.add("live");
  compare(part.querySelector(".explore-pair"), original, decoded);

  function choose(quality) {
    const row = part.querySelector(`tr[data-quality="${quality}"]`);
    const [bytes, rate, db] = [...row.cells].slice(1).map((cell) => cell.textContent);
    row.querySelector("input").checked = true;
    decoded.src = new URL(`q${quality}.webp`, run);
    bits.src = new URL(`bits${quality}.png`, run);
    for (const element of part.querySelectorAll("[data-quality]"))
      element.classList.toggle("chosen", element.dataset.quality === quality);
    for (const point of points) point.setAttribute("aria-pressed", point.dataset.quality === quality);
    part.querySelector("#explore-chosen").textContent =
      `Quality ${quality}: ${bytes} bytes, ${rate} bits per pixel, ${db} dB.`;
  }

  for (const radio of radios) radio.addEventListener("change", () => choose(radio.value));
  part.querySelector("#explore-staircase").setAttribute("role", "group");
  for (const point of points) {
    point.setAttribute("role", "button");
    point.setAttribute("tabindex", "0");
    point.setAttribute("aria-label", `quality ${point.dataset.quality}`);
    point.addEventListener("click", () => choose(point.dataset.quality));
    point.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Enter: 0, " ": 0 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const next = points[points.indexOf(point) + step] ?? point;
      next.focus();
      choose(next.dataset.quality);
    });
  }
  choose(radios.find((radio) => radio.checked).value);
}

// The two pictures under one slider: left of the handle the original, right of it what was decoded.
function compare(pair, original, decoded, text = "Left of the handle the original, right of it what was decoded.") {
  const slider = document.createElement("img-comparison-slider");
  slider.setAttribute("aria-label", "Original on the left, decoded on the right; the arrow keys move the border");
  slider.setAttribute("keyboard", "enabled");
  original.slot = "first";
  decoded.slot = "second";
  original.loading = decoded.loading = "eager";
  slider.append(original, decoded);
  slider.insertAdjacentHTML("beforeend", '<span slot="handle" class="compare-handle"></span>');
  const caption = document.createElement("figcaption");
  caption.textContent = text;
  const figure = document.createElement("figure");
  figure.append(slider, caption);
  pair.replaceChildren(figure);
  return caption;
}

// The photograph of the front page: right of the handle the codec's file, or a JPEG of as many bytes.
function front(part) {
  const [original, codec, jpeg] = part.querySelectorAll("img");
  const [whole, ...told] = [...part.querySelectorAll("figcaption")].map((caption) => caption.textContent);
  const shown = codec.cloneNode();
  const caption = compare(part.querySelector(".explore-pair"), original, shown);
  const choice = document.createElement("fieldset");
  choice.innerHTML = "<legend>Right of the handle</legend>";
  told.forEach((text, i) => {
    const label = document.createElement("label");
    label.innerHTML = `<input type="radio" name="front" ${i ? "" : "checked"}> `;
    label.append(text);
    choice.append(label);
    label.firstChild.addEventListener("change", () => {
      shown.src = [codec, jpeg][i].src;
      shown.alt = [codec, jpeg][i].alt;
    });
  });
  caption.textContent = `Left of the handle ${whole}.`;
  part.append(choice);
  part.classList.add("live");
}

function wavefront(part) {
  const last = Number(part.dataset.steps) - 1;
  const cells = [...part.querySelectorAll("td")];
  const controls = document.createElement("div");
  controls.className = "explore-controls";
  controls.innerHTML = `<button type="button" name="previous">previous</button>
    <button type="button" name="next">next</button><button type="button" name="play">play</button>
    <label>step <input type="range" min="0" max="${last}" value="0"></label><p role="status"></p>`;
  part.prepend(controls);
  part.classList.add("live");
  const range = controls.querySelector("input");
  const told = controls.querySelector("p");
  let focused = null;
  let timer = null;
  part.querySelector("table").setAttribute("role", "grid");
  for (const row of part.querySelectorAll("tr")) row.setAttribute("role", "row");
  for (const cell of cells) cell.setAttribute("role", "gridcell");

  const step = (cell) => Number(cell.textContent);
  // The taps of the 5x5 mask: two rows above, and two positions to the left; twelve, fewer at a border.
  function reads(cell, other) {
    const down = other.dataset.h - cell.dataset.h;
    const right = other.dataset.w - cell.dataset.w;
    return Math.abs(right) <= 2 && (down === 0 ? right < 0 : down < 0 && down >= -2);
  }

  function show(t) {
    range.value = t;
    const now = cells.filter((cell) => step(cell) === t);
    if (!focused || step(focused) !== t) focused = now[Math.floor(now.length / 2)];
    let done = 0;
    for (const cell of cells) {
      cell.classList.toggle("now", step(cell) === t);
      cell.classList.toggle("done", step(cell) < t);
      cell.classList.toggle("read", reads(focused, cell));
      cell.classList.toggle("focused", cell === focused);
      cell.tabIndex = cell === focused ? 0 : -1;
      done += step(cell) < t;
    }
    const dotted = cells.filter((cell) => reads(focused, cell)).length;
    told.textContent = `Step ${t} of ${last}: ${now.length} at once, ${done} of ${cells.length} done. ` +
      `The framed position reads ${["no other", "the dotted one"][dotted] ?? `the ${dotted} dotted ones`}.`;
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    told.setAttribute("aria-live", "polite");
    controls.querySelector("[name=play]").textContent = "play";
  }

  controls.querySelector("[name=previous]").addEventListener("click", () => { stop(); show(Math.max(0, Number(range.value) - 1)); });
  controls.querySelector("[name=next]").addEventListener("click", () => { stop(); show(Math.min(last, Number(range.value) + 1)); });
  range.addEventListener("input", () => { stop(); show(Number(range.value)); });
  controls.querySelector("[name=play]").addEventListener("click", (event) => {
    if (timer) return stop();
    event.target.textContent = "stop";
    told.setAttribute("aria-live", "off"); // or a screen reader would never end
    if (Number(range.value) === last) show(0);
    const slow = matchMedia("(prefers-reduced-motion: reduce)").matches;
    timer = setInterval(() => {
      if (Number(range.value) === last) return stop();
      show(Number(range.value) + 1);
    }, slow ? 1500 : 400);
  });
  function look(cell) {
    stop();
    focused = cell;
    show(step(cell));
  }
  const columns = part.querySelector("tr").cells.length;
  for (const [i, cell] of cells.entries()) {
    cell.addEventListener("click", () => look(cell));
    cell.addEventListener("keydown", (event) => {
      const way = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
      if (!way) return;
      event.preventDefault();
      const next = cells[i + way];
      if (!next || (Math.abs(way) === 1 && next.dataset.h !== cell.dataset.h)) return;
      look(next);
      next.focus();
    });
  }
  show(0);
}

for (const part of document.querySelectorAll("#explore-codec")) codec(part);
for (const part of document.querySelectorAll("#explore-wavefront")) wavefront(part);
for (const part of document.querySelectorAll(".explore-front")) front(part);
