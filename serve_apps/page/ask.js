// Talks with the endpoint. Photos are made lighter first, and who is sent away for now comes again.

import { size } from "./language.js";

const ATTEMPTS = 6, LONGEST = 30;  // times, seconds
const LIGHT = 1_500_000;           // bytes; a phone's photos have several times as many, and the model sees few of them
const SIDES = [1600, 1024, 640];   // pixels, tried in turn
const WORDS = 20_000;              // bytes of a request that are not the photo

// This browser's name for whoever looks: always the same model answers them, and what they say counts as one person's.
const visitor = () => {
  const name = crypto.getRandomValues(new Uint32Array(4)).join("-");
  try {
    const kept = localStorage.getItem("sicot.visitor");
    if (!kept) localStorage.setItem("sicot.visitor", name);
    return kept ?? name;
  } catch {
    return name;  // the browser keeps nothing
  }
};
const headers = { "X-Visitor-ID": visitor() };

export class Refused extends Error {
  constructor(code, message, values) {
    super(message);
    this.code = code;
    this.values = values;
  }
}

const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });

// Send a form; on 503 again after Retry-After. `wait` is told the seconds, and null once it asks again.
export async function post(path, body, { signal, wait = () => {}, attempts = ATTEMPTS } = {}) {
  for (let attempt = 1; ; attempt++) {
    let response, said;
    try {
      response = await fetch(path, { method: "POST", headers, body, signal });
      said = await response.json().catch(() => ({}));  // the wall in front of the endpoint speaks plain text
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Refused("network", error.message);
    }
    if (response.ok) return said;
    if (response.status !== 503 || attempt === attempts) {
      throw new Refused(response.status === 503 ? "full" : said.error?.code, said.error?.message ?? response.statusText);
    }
    const seconds = Math.min(LONGEST, Math.max(1, Number(response.headers.get("Retry-After")) || 1));
    wait(seconds);
    await pause(seconds + Math.random() / 4, signal);  // not all at the same time
    wait(null);
  }
}

// The photo, or a smaller one that shows the same. Refused if it is too large and cannot be made smaller.
export async function lighter(file, limits) {
  const most = Math.min(LIGHT, limits.max_bytes - WORDS);
  if (file.size <= most) return file;
  try {
    const bitmap = await createImageBitmap(file);  // upright
    for (const side of SIDES) {
      const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height)), canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [bitmap.width, bitmap.height].map((length) => Math.max(1, Math.round(length * scale)));
      canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      const made = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
      if (made && made.size <= most) return made;
    }
  } catch {
    // a format this browser does not read; the endpoint may
  }
  if (file.size <= limits.max_bytes) return file;
  throw new Refused("body_too_large", "", { size: size(file.size), most: size(limits.max_bytes) });
}

export function question({ photo, title, tags, k }) {
  const body = new FormData();
  if (photo) body.append("image", photo, "photo");
  if (title) body.append("title", title);
  if (tags) body.append("tags", tags);
  if (k) body.append("k", k);
  return body;
}

// Do the work on all things, at most so many at the same time.
export async function inTurn(things, width, work) {
  const left = [...things];
  const one = async () => {
    while (left.length) await work(left.shift());
  };
  await Promise.all(Array.from({ length: width }, one));
}
