// Draws one question and its answer: { name, url, title, tags, state, said, alone, error, seconds, noted }.

import { button, create, picture } from "./elements.js";
import { feedback } from "./feedback.js";
import { known, percent, t } from "./language.js";

// `page` has: batch, whether other questions stand beside it; feedback, whether the endpoint keeps any; retry(entry).
export function draw(entry, page) {
  const { element, state } = entry;
  element.dataset.state = state;
  const parts = { done: answered, failed }[state]?.(entry, page) ?? [waiting(entry)];
  element.replaceChildren(...parts.filter(Boolean));
}

function waiting(entry) {
  const line = create("div", undefined, "match"), text = create("p", undefined, "pending");
  const busy = create("span", undefined, "spinner");
  busy.setAttribute("aria-hidden", "true");
  text.append(busy, entry.seconds ? t("busy", { seconds: entry.seconds }) : t(entry.state));
  line.append(...shown(entry), text);
  return line;
}

function failed(entry, page) {
  const { code, message, values } = entry.error, line = create("div", undefined, "match");
  const text = create("div", undefined, "error");
  text.append(
    create("h3", t(known(code) ? code : "failed")),
    create("p", known(`${code}_text`) ? t(`${code}_text`, values) : message),
    button(t("again"), "button", () => page.retry(entry)),
  );
  line.append(...shown(entry), text);
  return [line];
}

// The photo that was sent, named where several are.
function shown({ url, name }) {
  if (!url) return [];
  const image = create("img");
  image.alt = t("shown", { name });
  image.src = url;
  image.onerror = () => image.replaceWith(create("span", name, "tile no-preview"));
  return [figure(image, t("your_photo"))];
}

function figure(content, caption) {
  const made = create("figure", undefined, "shot");
  made.append(content, create("figcaption", caption));
  return made;
}

function answered(entry, page) {
  const { said, alone } = entry, before = new Map((alone?.ranked ?? []).map((item, place) => [item.label, { place, ...item }]));
  const rows = said.ranked.map((item) => row(item, alone && before.get(item.label)));
  const list = create("ol", undefined, "ranked");
  list.append(...(said.unknown ? rows : rows.slice(1)));
  list.start = said.unknown ? 1 : 2;
  const best = match(entry, said.unknown ? null : rows[0]);
  const { name, version, digest } = said.model;
  const summary = page.batch ? null : create("p", summarise(entry, before), "summary");
  return [
    best,
    ...(said.unknown ? [list, summary] : [summary, others(list, page.batch)]),
    alone ? legend() : null,
    words(said),
    page.feedback ? feedback(entry, [...(said.unknown ? [] : [best]), ...list.children]) : null,
    page.batch ? null : create("p", `${Math.round(said.milliseconds)} ms · ${`${name} ${version}`.trim()} · ${digest.slice(0, 8)}`, "foot"),
  ];
}

function match({ url, name, title, tags, said }, best) {
  const made = create("div", undefined, `match${said.unknown ? " unknown" : ""}`), text = create("div", undefined, "match-text");
  const label = said.ranked[0]?.label ?? "";
  const tile = said.unknown ? create("span", "?", "tile") : picture(label);
  if (best) {
    text.append(create("p", t("likely"), "eyebrow"), create("h3", label, "label"));
    text.append(...best.querySelector(".row-text").children);
  } else text.append(create("h3", t("unknown"), "unsure"), create("p", t("unknown_text")));
  text.querySelector(".line .label")?.remove();
  made.dataset.label = label;
  made.append(...shown({ url, name }), figure(tile, t(said.unknown ? "no_product" : "product")), text);
  if (!url) text.prepend(create("p", [title, tags].filter(Boolean).join(" · "), "asked"));
  return made;
}

function row({ label, probability }, alone) {
  const item = create("li"), text = create("div", undefined, "row-text"), line = create("div", undefined, "line");
  const share = create("span", undefined, "share");
  if (alone) {
    const was = create("span", undefined, "was");
    was.append(create("span", `${t("alone")} `), percent(alone.probability));
    share.append(was);
  }
  share.append(create("strong", percent(probability)));
  line.append(create("span", label, "label"), share);
  text.append(line, bar(probability, ""));
  if (alone) text.append(bar(alone.probability, " alone"));
  item.dataset.label = label;
  item.append(picture(label), text);
  return item;
}

function bar(share, kind) {
  const track = create("div", undefined, `bar${kind}`), filled = create("i");
  track.setAttribute("aria-hidden", "true");  // the number beside it says the same
  filled.style.setProperty("--share", share);
  track.append(filled);
  return track;
}

function others(list, folded) {
  if (!list.children.length || !folded) return list.children.length ? list : null;
  const made = create("details");
  made.append(create("summary", t("others")), list);
  return made;
}

function legend() {
  const made = create("p", undefined, "legend");
  made.append(create("span", undefined, "key both"), t("both"), create("span", undefined, "key alone"), t("alone"));
  return made;
}

function summarise({ said, alone, url }, before) {
  if (!said.ranked.length) return "";
  const top = said.ranked[0];
  if (!alone) return t(url ? "by_photo" : "by_words");
  const was = before.get(top.label);
  if (!was) return t("brought_up");
  if (was.place > 0) return t("moved_up", { place: was.place + 1 });
  const change = top.probability - was.probability;
  if (Math.abs(change) < 0.005) return t("unchanged");
  return t(change > 0 ? "surer" : "doubt");
}

function words({ words: given, no_word: none }) {
  if (!given.length) return null;
  const made = create("div", undefined, "words-part"), list = create("ul", undefined, "words");
  const most = Math.max(none, ...given.map((word) => word.weight), 1e-9);
  for (const { token, weight, known: isKnown } of given) {
    list.append(chip(token, isKnown ? percent(weight) : t("word_unknown"), weight / most, isKnown ? "" : "unknown"));
  }
  list.append(chip(t("no_word"), percent(none), none / most, "none"));
  const hint = [t("words_hint"), ...(given.every((word) => word.known) ? [] : [t("words_unknown")])].join(" ");
  made.append(create("h4", t("attention")), list, create("p", hint, "hint"));
  return made;
}

function chip(token, share, warmth, kind) {
  const made = create("li", undefined, kind);
  made.style.setProperty("--warmth", warmth);
  made.append(create("b", token), create("small", share));
  return made;
}
