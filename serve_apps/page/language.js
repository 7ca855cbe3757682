// Which language the page speaks: the browser's, until somebody here says otherwise.

import { LANGUAGES } from "./words.js";

const wished = () => (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

let spoken = wished();
try {
  spoken = localStorage.getItem("sicot.language") in LANGUAGES ? localStorage.getItem("sicot.language") : spoken;
} catch {
  // a browser that keeps nothing: its language is asked again
}

export const t = (key, values = {}) =>
  LANGUAGES[spoken][key].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

export const known = (key) => key in LANGUAGES[spoken];

export const number = (value) => value.toLocaleString(spoken === "zh" ? "zh-CN" : "en");

export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(share * 100).toFixed(share && share < 0.0995 ? 1 : 0)} %`;
}

export const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

// Puts the words in their places: data-t is an element's text, data-t-label its name, data-t-example its placeholder.
export function speak() {
  const root = document.documentElement;
  root.lang = spoken === "zh" ? "zh-Hans" : "en";
  document.title = t("document");
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) element.ariaLabel = t(element.dataset.tLabel);
  for (const element of document.querySelectorAll("[data-t-example]")) element.placeholder = t(element.dataset.tExample);
  const other = document.getElementById("language");
  [other.textContent, other.lang] = spoken === "zh" ? ["English", "en"] : ["中文", "zh-Hans"];
}

export function speakOther() {
  spoken = spoken === "zh" ? "en" : "zh";
  try {
    localStorage.setItem("sicot.language", spoken);
  } catch {
    // as above
  }
  speak();
}
