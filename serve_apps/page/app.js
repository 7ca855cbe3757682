// The page: asks /v1/recognize and draws the answer. Whatever comes from outside is set as text, never as markup.

const $ = (id) => document.getElementById(id);
const form = $("ask"), answer = $("answer"), photo = $("photo");
let file = null;       // the photo that is shown
let limits = null;     // of the server, once it has told
let asking = null;     // AbortController of the question on its way

const HEADINGS = {
  image_unreadable: "This photo cannot be read",
  image_type: "This is not a photo",
  image_too_large: "This photo is too large",
  body_too_large: "This file is too large",
  bad_field: "Please look at this again",
  full: "Busy just now",
  network: "No answer from the server",
};

const create = (tag, text, className) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
};

const percent = (share) => {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
};

const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

// ---------------------------------------------------------------- the photo

function choose(chosen) {
  file = chosen ?? null;
  const preview = $("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.hidden = true;
  preview.removeAttribute("src");
  $("drop-text").hidden = false;
  $("drop-title").textContent = "Choose a photo";
  $("photo-name").hidden = !file;
  if (!file) {
    photo.value = "";
    return;
  }
  $("photo-name").firstElementChild.textContent = `${file.name || "pasted photo"} · ${size(file.size)}`;
  preview.onload = () => {
    preview.hidden = false;
    $("drop-text").hidden = true;
  };
  preview.onerror = () => ($("drop-title").textContent = "No preview: choose another photo");
  preview.alt = `Your photo: ${file.name || "pasted"}`;
  preview.src = URL.createObjectURL(file);
}

photo.addEventListener("change", () => photo.files.length && choose(photo.files[0]));
$("remove").addEventListener("click", () => {
  choose(null);
  photo.focus();
});
document.addEventListener("paste", (event) => {
  const pasted = [...(event.clipboardData?.files ?? [])].find((item) => item.type.startsWith("image/"));
  if (pasted) choose(pasted);
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();  // a file dropped beside the field must not replace the page
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
  });
}

// ---------------------------------------------------------------- asking

async function recognise({ words, k }, signal) {
  const body = new FormData();
  if (file) body.append("image", file, "photo");
  if (words) {
    body.append("title", $("title").value);
    if ($("tags").value.trim()) body.append("tags", $("tags").value);
  }
  body.append("k", k);
  let response, said;
  try {
    response = await fetch("/v1/recognize", { method: "POST", body, signal });
    said = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("network", "Is it still running? Nothing of yours is lost: try again.");
  }
  if (!response.ok) throw new Refused(said.error?.code, said.error?.message ?? response.statusText);
  return said;
}

function check() {
  const words = $("title").value.trim() || $("tags").value.trim();
  if (!file && !words) throw new Refused("bad_field", "Choose a photo, or type a title.");
  const k = Number($("k").value), most = limits?.max_k ?? 100;
  if (!Number.isInteger(k) || k < 1 || k > most) throw new Refused("bad_field", `Ranks must be between 1 and ${most}.`);
  if (file && limits && file.size > limits.max_bytes) {
    throw new Refused("body_too_large", `It has ${size(file.size)}; at most ${size(limits.max_bytes)} are read.`);
  }
  return { words: Boolean(words), k };
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  asking?.abort();
  const mine = (asking = new AbortController());
  busy(true);
  try {
    const question = check();
    const compare = Boolean(file) && question.words;
    const [said, alone] = await Promise.all([
      recognise(question, mine.signal),
      // the comparison is a courtesy: the answer stands without it
      compare ? recognise({ words: false, k: limits?.max_k ?? 100 }, mine.signal).catch(() => null) : null,
    ]);
    draw(said, alone);
  } catch (error) {
    if (error.name === "AbortError") return;
    complain(error);
  } finally {
    if (asking === mine) busy(false);
  }
});

$("title").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {  // Enter also ends a word in an input method
    event.preventDefault();
    form.requestSubmit();
  }
});

function busy(yes) {
  form.setAttribute("aria-busy", yes);
  $("go-text").textContent = yes ? "Looking…" : "Recognise";
  answer.classList.toggle("stale", yes);
}

// ---------------------------------------------------------------- the answer

function show(state) {
  answer.dataset.state = state;
  if (matchMedia("(max-width: 820px)").matches) answer.scrollIntoView({ block: "start" });
}

function complain(error) {
  $("status").textContent = "";
  $("error").replaceChildren(
    create("strong", HEADINGS[error.code] ?? "That did not work"),
    create("p", error.message),
  );
  show("error");
}

function draw(said, alone) {
  const before = new Map((alone?.ranked ?? []).map((item, place) => [item.label, { place, ...item }]));
  $("ranked").replaceChildren(...said.ranked.map((item) => row(item, alone && before.get(item.label))));
  $("legend").hidden = !alone;
  $("unknown").hidden = !said.unknown;
  $("summary").textContent = summarise(said, alone, before);
  drawWords(said);
  const { name, version, digest } = said.model;
  $("foot").textContent = `${Math.round(said.milliseconds)} ms · ${modelName(name, version, digest)}`;
  const top = said.ranked[0];
  const first = said.unknown ? "No known product is sure enough. Nearest is" : "Most likely";
  $("status").textContent = `${first} ${top.label}, ${percent(top.probability)}. ${$("summary").textContent}`;
  show("result");
}

function row({ label, probability }, alone) {
  const item = create("li"), line = create("div", undefined, "line"), share = create("span", undefined, "share");
  if (alone) {
    const was = create("span", undefined, "was");
    was.append(create("span", "photo alone "), percent(alone.probability));
    share.append(was);
  }
  share.append(create("strong", percent(probability)));
  line.append(create("span", label, "label"), share);
  item.append(line, bar(probability, ""));
  if (alone) item.append(bar(alone.probability, " alone"));
  return item;
}

function bar(share, kind) {
  const track = create("div", undefined, `bar${kind}`), filled = create("i");
  track.setAttribute("aria-hidden", "true");  // the number beside it says the same
  filled.style.setProperty("--share", share);
  track.append(filled);
  return track;
}

function summarise(said, alone, before) {
  if (!said.ranked.length) return "";
  const top = said.ranked[0];
  if (!alone) return file ? "By the photo alone." : "By the words alone.";
  const was = before.get(top.label);
  if (!was) return "The words brought up a product that the photo alone ranks far down.";
  if (was.place > 0) return `The words moved it up: by the photo alone it is number ${was.place + 1}.`;
  const change = top.probability - was.probability;
  if (Math.abs(change) < 0.005) return "Photo and words agree; the words changed nothing.";
  return change > 0 ? "Photo and words agree; the words make it surer." : "The photo says the same; the words raise a doubt.";
}

function drawWords({ words, no_word: none }) {
  $("words-part").hidden = !words.length;
  if (!words.length) return;
  const most = Math.max(none, ...words.map((word) => word.weight), 1e-9);
  const chips = words.map(({ token, weight, known }) => {
    const chip = create("li", undefined, known ? "" : "unknown");
    chip.style.setProperty("--warmth", weight / most);
    chip.append(create("b", token), create("small", known ? percent(weight) : "unknown"));
    return chip;
  });
  const refusal = create("li", undefined, "none");
  refusal.style.setProperty("--warmth", none / most);
  refusal.append(create("b", "no word helped"), create("small", percent(none)));
  $("words").replaceChildren(...chips, refusal);
  const unknown = words.some((word) => !word.known);
  $("words-hint").textContent =
    "The stronger the colour, the more the answer leans on it." +
    (unknown ? " Unknown words are not in the catalogue's vocabulary and count for nothing." : "");
}

// ---------------------------------------------------------------- the model

const modelName = (name, version, digest) => `${name} ${version || ""}`.trim() + ` · ${digest.slice(0, 8)}`;

try {
  const about = await (await fetch("/v1/model")).json();
  limits = about.limits;
  $("k").max = limits.max_k;
  $("title").maxLength = limits.max_title;
  $("model").textContent = `${`${about.name} ${about.version}`.trim()} · ${about.classes.toLocaleString("en")} products`;
  $("model").title = about.digest;
} catch {
  $("model").textContent = "the server does not answer";
}
