// Was the answer right? Asked where the endpoint keeps what is said; see POST /v1/feedback.

import { lighter, post, question } from "./ask.js";
import { announce, button, create } from "./elements.js";
import { known, t } from "./language.js";

const SUGGESTIONS = 8, TYPING = 200;  // ms of rest before labels are looked up
let number = 0;

// The part of a card that asks; `rows` are the card's products, which can be picked from.
export function feedback(entry, rows) {
  const made = create("div", undefined, "feedback");
  made.role = "group";
  made.ariaLabel = t(entry.said.unknown ? "unknown_question" : "right_question");
  entry.noted ? thank(made, entry) : ask(made, entry, rows);
  return made;
}

function ask(made, entry, rows) {
  const top = entry.said.ranked[0]?.label, buttons = create("div", undefined, "choices");
  if (!entry.said.unknown) buttons.append(button(t("right"), "button yes", () => tell(made, entry, "accepted", top)));
  if (rows.length) buttons.append(button(t("pick"), "button", () => pick(made, entry, rows)));
  buttons.append(button(t("none"), "button", () => name(made, entry, rows)));
  made.replaceChildren(create("p", made.ariaLabel, "ask-right"), buttons);
}

// The products of the card get a button each.
function pick(made, entry, rows) {
  const stop = () => {
    for (const each of entry.element.querySelectorAll(".this-one")) each.remove();
    entry.element.onkeydown = null;
    ask(made, entry, rows);
    made.querySelectorAll("button")[entry.said.unknown ? 0 : 1].focus();
  };
  for (const row of rows) {
    const { label } = row.dataset, top = label === entry.said.ranked[0].label && !entry.said.unknown;
    const outcome = top ? "accepted" : "corrected";
    const one = button(t("this_one"), "button this-one", () => tell(made, entry, outcome, label));
    one.ariaLabel = `${t("this_one")}: ${label}`;
    row.append(one);
  }
  const folded = entry.element.querySelector("details");
  if (folded) folded.open = true;
  made.replaceChildren(create("p", t("pick_hint"), "pick-hint"), button(t("cancel"), "button", stop));
  entry.element.onkeydown = (event) => {
    if (event.key === "Escape") stop();  // and nothing is returned: false would swallow the key
  };
  announce(t("pick_hint"));
  entry.element.querySelector(".this-one").focus();
}

// None of them: the label is typed, with those that the endpoint knows as suggestions.
function name(made, entry, rows) {
  const form = create("form", undefined, "name"), input = create("input"), list = create("datalist");
  const label = create("label", t("which")), id = `product-${++number}`;
  [input.id, input.type, input.required, input.maxLength, input.autocomplete] = [id, "text", true, 200, "off"];
  [label.htmlFor, list.id] = [id, `${id}-known`];
  input.setAttribute("list", list.id);
  const send = create("button", t("send"), "button yes"), stop = () => {
    ask(made, entry, rows);
    made.querySelector("button:last-of-type").focus();
  };
  let typing = 0;
  input.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => suggest(input.value.trim(), list), TYPING);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.value.trim()) tell(made, entry, "corrected", input.value.trim());
  });
  form.onkeydown = (event) => {
    if (event.key === "Escape") stop();
  };
  const line = create("div", undefined, "choices");
  line.append(input, send, button(t("cancel"), "button", stop));
  form.append(label, line, list);
  made.replaceChildren(form);
  input.focus();
}

async function suggest(part, list) {
  if (!part) return;
  try {
    const response = await fetch(`/v1/classes?${new URLSearchParams({ q: part, limit: SUGGESTIONS })}`);
    const found = response.ok ? (await response.json()).classes : [];
    list.replaceChildren(...found.map(({ label }) => Object.assign(create("option"), { value: label })));
  } catch {
    // suggestions are a courtesy
  }
}

async function tell(made, entry, outcome, label) {
  for (const each of entry.element.querySelectorAll(".feedback button, .this-one")) each.disabled = true;
  try {
    // a correction carries what it was asked with, so that the next model can learn from it
    const asked = outcome === "corrected" ? entry : {};
    const photo = asked.file && (await lighter(asked.file, asked.limits));
    const body = question({ photo, title: asked.title, tags: asked.tags });
    for (const [field, value] of Object.entries({ request_id: entry.said.request_id, outcome, label })) body.append(field, value);
    await post("/v1/feedback", body);
  } catch (error) {
    for (const each of entry.element.querySelectorAll(".feedback button, .this-one")) each.disabled = false;
    made.querySelector(".not-sent")?.remove();
    const message = t("not_sent", { message: known(error.code) ? t(error.code) : error.message });
    made.append(create("p", message, "not-sent"));
    announce(message);
    return;
  }
  entry.noted = { outcome, label };
  entry.element.onkeydown = null;
  for (const each of entry.element.querySelectorAll(".this-one")) each.remove();
  thank(made, entry);
  announce(made.textContent);
  made.firstElementChild.focus();
}

function thank(made, { noted }) {
  const text = create("p", t(noted.outcome === "accepted" ? "thanks_right" : "thanks_other", noted), "thanks");
  text.tabIndex = -1;
  made.replaceChildren(text);
}
