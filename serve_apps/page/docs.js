// Draws /openapi.json: one card for each operation. Nothing is fetched from elsewhere.

import { create } from "./elements.js";

const description = await (await fetch("/openapi.json")).json();
const main = document.querySelector("main");
const follow = (schema) => (schema?.$ref ? schema.$ref.slice(2).split("/").reduce((at, key) => at[key], description) : schema);

const typeOf = (schema) => {
  if (schema.$ref) return typeOf(follow(schema));
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  if (schema.format === "binary") return "file";
  return schema.type ?? "any";
};

const bounds = (schema) =>
  [
    ["minimum", "from"], ["maximum", "to"], ["maxLength", "characters up to"], ["maxItems", "at most"],
  ].filter(([key]) => schema[key] !== undefined).map(([key, word]) => `${word} ${schema[key]}`);

// Text whose `backticks` are code.
function prose(tag, text) {
  const element = create(tag);
  (text ?? "").split("`").forEach((part, place) => element.append(place % 2 ? create("code", part) : part));
  return element;
}

function table(rows) {
  const made = create("table");
  for (const [name, kind, text] of rows) {
    const first = create("td"), line = create("tr");
    first.append(create("code", name), create("span", kind));
    line.append(first, prose("td", text));
    made.append(line);
  }
  return made;
}

function rows(schema, above = "") {
  return Object.entries(follow(schema).properties ?? {}).flatMap(([name, field]) => {
    const inner = follow(field.items ?? field), kind = [typeOf(field), ...bounds(field)].join(", ");
    return [[above + name, kind, field.description ?? inner.description], ...rows(inner, `${above}${name}.`)];
  });
}

for (const [path, operations] of Object.entries(description.paths)) {
  for (const [verb, operation] of Object.entries(operations)) {
    const card = create("section", undefined, "card"), heading = create("h2");
    heading.append(create("span", verb.toUpperCase(), "verb"), create("code", path));
    card.append(heading, ...operation.description.split("\n\n").map((part) => prose("p", part)));
    const form = operation.requestBody?.content["multipart/form-data"]?.schema;
    const parameters = (operation.parameters ?? []).map((it) => [it.name, [typeOf(it.schema), ...bounds(it.schema)].join(", "), it.description]);
    const asked = [...(form ? rows(form) : []), ...parameters.filter(([name]) => !form || name.startsWith("X-"))];
    if (asked.length) card.append(create("h3", "Request"), table(asked));
    const good = Object.keys(operation.responses).find((status) => status.startsWith("2"));
    const answer = operation.responses[good].content?.["application/json"];
    if (answer) card.append(create("h3", "Answer"), table(rows(answer.schema)));
    if (answer?.example) {
      const example = create("pre", JSON.stringify(answer.example, null, 2));
      example.tabIndex = 0;  // it scrolls sideways, by keyboard too
      card.append(example);
    }
    const failures = Object.entries(operation.responses).filter(([status]) => status !== good);
    if (failures.length) card.append(create("h3", "Errors"), table(failures.map(([status, it]) => [status, "", it.description])));
    main.append(card);
  }
}

document.getElementById("curl").textContent =
  `curl ${location.origin}/v1/recognize -F image=@photo.jpg -F title='红色 陶瓷 茶壶' -F tags=kitchen,tea -F k=5\n` +
  `curl '${location.origin}/v1/recognize?k=3' -H 'Content-Type: image/jpeg' --data-binary @photo.jpg`;
