// The page: asks /v1/recognize about each photo and draws the answers.

import { inTurn, lighter, post, question, Refused } from "./ask.js";
import { draw as drawCard } from "./card.js";
import { $, announce, create } from "./elements.js";
import { number, percent, speak, speakOther, t } from "./language.js";
import { draw as drawPhotos, forget, listen, photos } from "./photos.js";

const WIDTH = 3;          // photos that are asked about at the same time
const ALONE = 100;        // ranks that a photo alone is compared by, where the endpoint gives so many
let about = null;         // the model, once the endpoint has told
let limits = { max_bytes: 10_000_000, max_k: 100 };
let entries = [];         // questions that stand on the page, see card.js
let running = null;       // what is on its way: { control: AbortController, left: how many }

const page = { batch: false, feedback: false, retry: (entry) => run([entry]) };

// ---------------------------------------------------------------- asking

function questions() {
  const title = $("title").value.trim(), tags = $("tags").value.trim(), k = Number($("k").value);
  if (!photos().length && !title && !tags) throw new Error(t("nothing"));
  if (!Number.isInteger(k) || k < 1 || k > limits.max_k) throw new Error(t("ranks_range", { most: limits.max_k }));
  const words = { title, tags, k, limits };
  if (!photos().length) return [{ ...words }];
  return photos().map((photo) => {
    photo.asked = true;
    return { ...words, file: photo.file, name: photo.name, url: URL.createObjectURL(photo.file) };
  });
}

function start() {
  let asked;
  try {
    asked = questions();
    $("amiss").textContent = "";
  } catch (error) {
    $("amiss").textContent = error.message;
    return;
  }
  running?.control.abort();
  running = null;
  for (const { url } of entries) if (url) URL.revokeObjectURL(url);
  entries = asked.map((entry) => ({ ...entry, state: "waiting", element: create("article", undefined, "card result") }));
  page.batch = entries.length > 1;
  $("results").classList.toggle("batch", page.batch);
  $("results").replaceChildren(...entries.map(({ element }) => element));
  $("answer").dataset.state = "answers";
  if (matchMedia("(max-width: 820px)").matches) $("answer").scrollIntoView();
  run(entries);
}

async function run(chosen) {
  const mine = (running ??= { control: new AbortController(), left: 0 });  // one may be tried again beside the others
  mine.left += chosen.length;
  for (const entry of chosen) set(entry, { state: "waiting", error: null, seconds: 0 });
  busy(true);
  await inTurn(chosen, WIDTH, async (entry) => {
    await answer(entry, mine.control.signal);
    mine.left--;
  });
  if (running !== mine || mine.left) return;
  running = null;
  busy(false);
  if (page.batch) announce($("progress-text").textContent);
}

async function answer(entry, signal) {
  try {
    if (signal.aborted) throw signal.reason;
    set(entry, { state: "asking" });
    const photo = entry.file && (await lighter(entry.file, limits));
    const wait = (seconds) => set(entry, { seconds });
    // what the photo alone would have said is a courtesy: asked once, and the answer stands without it
    const compare = photo && (entry.title || entry.tags) && !page.batch;
    const [said, alone] = await Promise.all([
      post("/v1/recognize", question({ ...entry, photo }), { signal, wait }),
      compare ? post("/v1/recognize", question({ photo, k: Math.min(ALONE, limits.max_k) }), { signal, attempts: 1 }).catch(() => null) : null,
    ]);
    set(entry, { state: "done", said, alone });
    if (!page.batch) announce(told(said));
  } catch (error) {
    if (!entries.includes(entry)) return;
    set(entry, { state: "failed", error: signal.aborted ? new Refused("stopped") : error });
    if (!signal.aborted) announce(entry.element.querySelector(".error h3").textContent);
  }
}

function told({ ranked: [top], unknown }) {
  if (!top) return "";
  return t(unknown ? "said_unknown" : "said_likely", { label: top.label, share: percent(top.probability) });
}

// ---------------------------------------------------------------- drawing

function set(entry, changes) {
  Object.assign(entry, changes);
  if (!entries.includes(entry)) return;  // other questions stand there by now
  drawCard(entry, page);
  drawProgress();
}

function drawProgress() {
  const done = entries.filter(({ state }) => state === "done"), failed = entries.filter(({ state }) => state === "failed");
  const count = entries.length, settled = done.length + failed.length, unknown = done.filter(({ said }) => said.unknown).length;
  $("progress-line").hidden = count < 2;
  $("progress").max = count;
  $("progress").value = settled;
  $("stop").hidden = settled === count;
  $("again").hidden = settled < count || !failed.length;
  $("again").textContent = t("again_failed", { count: failed.length });
  const values = { done: settled, count, known: done.length - unknown, unknown, failed: failed.length };
  $("progress-text").textContent = t(settled < count ? "progress" : "finished", values);
  $("over").hidden = settled < count;
}

function busy(yes) {
  $("ask").setAttribute("aria-busy", yes);
  $("answer").setAttribute("aria-busy", yes);
  if (yes) $("go-text").textContent = t("going");
  else drawPhotos();
}

function drawModel() {
  const name = about && `${about.name} ${about.version}`.trim();
  $("model").textContent = about ? `${name} · ${t("products", { count: number(about.classes) })}` : t("silent");
}

// ---------------------------------------------------------------- what people do

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
$("title").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {  // Enter also ends a word in an input method
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
$("stop").addEventListener("click", () => running?.control.abort());
$("again").addEventListener("click", () => run(entries.filter(({ state }) => state === "failed")));
$("over").addEventListener("click", () => {
  forget();
  for (const field of [$("title"), $("tags")]) field.value = "";
  $("ask").scrollIntoView();
  $("photo").focus({ preventScroll: true });
});
$("language").addEventListener("click", () => {
  speakOther();
  const going = $("ask").getAttribute("aria-busy") === "true";
  drawPhotos();
  if (going) $("go-text").textContent = t("going");
  $("amiss").textContent = "";
  drawModel();
  for (const entry of entries) drawCard(entry, page);
  if (entries.length) drawProgress();
});

speak();
listen();
drawPhotos();
try {
  const response = await fetch("/v1/model");
  if (!response.ok) throw new Error(response.statusText);
  about = await response.json();
  limits = about.limits;
  page.feedback = about.feedback === true;
  $("k").max = limits.max_k;
  $("title").maxLength = limits.max_title;
  $("model").title = about.digest;
} catch {
  about = null;  // asking will say more
}
drawModel();
