// Small ways to make elements. Whatever comes from outside is set as text, never as markup.

export const $ = (id) => document.getElementById(id);

export function create(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

export function button(text, className, onclick) {
  const made = create("button", text, className);
  made.type = "button";
  made.addEventListener("click", onclick);
  return made;
}

// A product's picture, or its first letter where there is none. The name stands beside it.
export function picture(label) {
  const tile = create("span", undefined, "tile"), image = create("img");
  tile.setAttribute("aria-hidden", "true");
  image.alt = "";
  image.loading = "lazy";
  image.onerror = () => tile.replaceChildren([...label.trim()][0]?.toUpperCase() ?? "·");
  image.src = `/v1/classes/photo?label=${encodeURIComponent(label)}`;
  tile.append(image);
  return tile;
}

export function announce(text) {
  const line = create("p", text);
  $("status").replaceChildren(line);
}
