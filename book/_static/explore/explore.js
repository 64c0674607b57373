// The page explore.md: a choice of quality that table, pictures and staircase share, and the wavefront step by step.
// Without this script the page shows quality 3 and all steps at once.

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
function compare(pair, original, decoded) {
  const slider = document.createElement("img-comparison-slider");
  slider.setAttribute("aria-label", "Original on the left, decoded on the right; the arrow keys move the border");
  slider.setAttribute("keyboard", "enabled");
  original.slot = "first";
  decoded.slot = "second";
  original.loading = decoded.loading = "eager";
  slider.append(original, decoded);
  const caption = document.createElement("figcaption");
  caption.textContent = "Left of the handle the original, right of it what was decoded.";
  const figure = document.createElement("figure");
  figure.append(slider, caption);
  pair.replaceChildren(figure);
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

  const step = (cell) => Number(cell.textContent);
  // The twelve taps of the 5x5 mask: two rows above, and two positions to the left.
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
      done += step(cell) < t;
    }
    told.textContent = `Step ${t} of ${last}: ${now.length} at once, ${done} of ${cells.length} done. ` +
      `The framed position reads the dotted ones.`;
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    controls.querySelector("[name=play]").textContent = "play";
  }

  controls.querySelector("[name=previous]").addEventListener("click", () => { stop(); show(Math.max(0, Number(range.value) - 1)); });
  controls.querySelector("[name=next]").addEventListener("click", () => { stop(); show(Math.min(last, Number(range.value) + 1)); });
  range.addEventListener("input", () => { stop(); show(Number(range.value)); });
  controls.querySelector("[name=play]").addEventListener("click", (event) => {
    if (timer) return stop();
    event.target.textContent = "stop";
    if (Number(range.value) === last) show(0);
    const slow = matchMedia("(prefers-reduced-motion: reduce)").matches;
    timer = setInterval(() => {
      if (Number(range.value) === last) return stop();
      show(Number(range.value) + 1);
    }, slow ? 1500 : 400);
  });
  for (const cell of cells)
    cell.addEventListener("click", () => { stop(); focused = cell; show(step(cell)); });
  show(0);
}

for (const part of document.querySelectorAll("#explore-codec")) codec(part);
for (const part of document.querySelectorAll("#explore-wavefront")) wavefront(part);
