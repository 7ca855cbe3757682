// The photos that are to be asked about: taken, chosen, dropped or pasted.

import { $, announce, button, create } from "./elements.js";
import { size, t } from "./language.js";

const MOST = 50;
let chosen = [];  // { file, name, url, asked }

export const photos = () => chosen;

export function forget(gone = chosen) {
  for (const each of gone) URL.revokeObjectURL(each.url);
  chosen = chosen.filter((each) => !gone.includes(each));
  draw();
}

function add(files) {
  if (!files.length) return;
  // who has an answer and takes another photo asks about that one
  if (chosen.every((photo) => photo.asked)) forget();
  const more = [...files].map((file) => ({ file, name: file.name || t("pasted"), url: URL.createObjectURL(file) }));
  const crowded = chosen.length + more.length > MOST;
  for (const each of more.splice(MOST - chosen.length)) URL.revokeObjectURL(each.url);
  chosen = [...chosen, ...more];
  draw();
  $("crowded").hidden = !crowded;
  if (crowded) announce(t("too_many", { most: MOST }));
}

export function draw() {
  $("drop").dataset.count = chosen.length > 1 ? "many" : String(chosen.length);
  $("chosen").replaceChildren(...chosen.map(item));
  $("chosen-line").hidden = !chosen.length;
  const bytes = chosen.reduce((sum, photo) => sum + photo.file.size, 0);
  const told = { count: chosen.length, size: size(bytes), name: chosen[0]?.name };
  $("chosen-text").textContent = t(chosen.length === 1 ? "chosen_one" : "chosen", told);
  $("for-all").hidden = chosen.length < 2;
  $("crowded").textContent = t("too_many", { most: MOST });
  $("crowded").hidden = true;
  $("go-text").textContent = chosen.length > 1 ? t("go_many", { count: chosen.length }) : t("go");
}

function item(photo) {
  const made = create("li"), image = create("img");
  image.alt = t("shown", { name: photo.name });
  image.decoding = "async";
  image.onerror = () => image.replaceWith(create("span", photo.name, "no-preview"));
  image.src = photo.url;
  const gone = button("×", "gone", () => {
    const place = chosen.indexOf(photo);
    forget([photo]);
    ($("chosen").children[Math.min(place, chosen.length - 1)]?.querySelector("button") ?? $("photo")).focus();
  });
  gone.ariaLabel = t("remove", { name: photo.name });
  made.append(image, gone);
  return made;
}

export function listen() {
  document.documentElement.toggleAttribute("data-touch", navigator.maxTouchPoints > 0);  // has a camera, most likely
  for (const input of [$("photo"), $("camera")]) {
    input.addEventListener("change", () => {
      add(input.files);
      input.value = "";  // the same photo may be chosen once more
    });
  }
  $("clear").addEventListener("click", () => {
    forget();
    $("photo").focus();
  });
  document.addEventListener("paste", (event) => {
    add([...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/")));
  });
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();  // a file dropped beside the field must not replace the page
      $("drop").classList.toggle("over", name === "dragover");
      if (name === "drop") add(event.dataTransfer.files);
    });
  }
}
