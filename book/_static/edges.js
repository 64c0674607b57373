// What scrolls sideways says so with a fading edge, and can be reached by keyboard; on paper every answer is open;
// what a search found is quoted from the text.

const SCROLLS = ".drawing-frame, .cell_output, .cell_output .output, pre, div.math, mjx-container, .pst-scrollable-table-container, .explore-table, .text_html";
const watched = new WeakSet();

function fade(box) {
  const hidden = box.scrollWidth - box.clientWidth;
  const scrolls = hidden > 1 && /auto|scroll/.test(getComputedStyle(box).overflowX);
  box.classList.toggle("fades-left", scrolls && box.scrollLeft > 1);
  box.classList.toggle("fades-right", scrolls && hidden - box.scrollLeft > 1);
  // No wider than what is out of sight: a few pixels of it darken nothing.
  box.style.setProperty("--left", `${Math.min(48, box.scrollLeft)}px`);
  box.style.setProperty("--right", `${Math.min(48, hidden - box.scrollLeft)}px`);
  if (scrolls) box.tabIndex = 0; // again after each change of width: the theme takes it from what has room
  if (scrolls && !watched.has(box)) {
    watched.add(box);
    box.addEventListener("scroll", () => fade(box), { passive: true });
  }
}

function fadeAll() {
  for (const box of document.querySelectorAll(SCROLLS)) if (box.closest("article")) fade(box);
}

window.addEventListener("load", () => {
  fadeAll();
  const article = document.querySelector("article");
  if (article) new ResizeObserver(fadeAll).observe(article);
  window.MathJax?.startup?.promise?.then(fadeAll);
});

// On a narrow screen the contents lie over the page: who has chosen wants to see it.
document.addEventListener("click", (event) => {
  if (event.target.closest("dialog .page-toc a")) event.target.closest("dialog").close();
});

// The search page quotes from a page's text, without the names of its buttons, its contents and the words of its drawings.
if (typeof Search !== "undefined") {
  const NO_TEXT = ".headerlink, script, style, svg, nav, button, form, .explore, .codec-pair, .visually-hidden";
  Search.htmlToText = (html, anchor) => {
    const article = new DOMParser().parseFromString(html, "text/html").querySelector("article");
    for (const element of article?.querySelectorAll(NO_TEXT) ?? []) element.remove();
    const found = (anchor && article?.querySelector(anchor)) || article;
    const meaning = found?.matches("dt") ? `: ${found.nextElementSibling?.textContent}` : "";  // of a term
    return found ? (found.textContent.trim() + meaning).replace(/\s+/g, " ").trim() : "";
  };
}

// What was shut before printing is shut again afterwards; paper is light.
let opened = [], theme = "light";
window.addEventListener("beforeprint", () => {
  theme = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
  opened = [...document.querySelectorAll("article details:not([open]):not(.hide)")];
  for (const details of opened) details.open = true;
  for (const image of document.images) image.loading = "eager";
});
window.addEventListener("afterprint", () => {
  document.documentElement.dataset.theme = theme;
  for (const details of opened) details.open = false;
});
