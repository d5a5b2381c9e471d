// The editor's page: shows a session's state and images, turns strokes into masks, sends what was pressed. The session lives in
// the server; its name is in the address after #, so that a reload finds it and another tab has its own.

import { make, Tile } from "/painting.js";

const $ = (id) => document.getElementById(id);
const NAMES = { copy: "Copy", paste: "Paste", context: "Context", query: "Query" };

let state = null;
let session = null; // its name
let images = new Map(); // number -> {before, after, match}
let drawn = ""; // what the images were fetched for
let pending = 0;
let hot = false; // whether matches are shown
let events = null;
let losses = [];
const tiles = new Map(); // number -> Tile
const tools = {
  name: () => document.querySelector("input[name=tool]:checked").value,
  size: () => Number($("brush").value),
  resize: (by) => ($("brush").value = tools.size() + by),
  order: (what) => $(what).click(),
};

// --- requests

async function ask(path, options = {}) {
  pending += 1;
  showStatus();
  try {
    const answer = await fetch(path, options);
    const content = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(content.error), { status: answer.status });
    return content;
  } catch (error) {
    if (error instanceof TypeError) throw new Error("The editor does not answer: is it still running?");
    throw error;
  } finally {
    pending -= 1;
    showStatus();
  }
}

const base = () => `/api/sessions/${session}`;
const posted = (content) => ({ method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(content) });

async function act(path, content = {}) {
  try {
    await take(await ask(`${base()}/${path}`, posted(content)));
    return true;
  } catch (error) {
    complain(error);
    return false;
  }
}

async function complain(error) {
  if (error.status === 404 || error.status === 410) {
    await open(`${error.message} A new one was opened.`);
    return;
  }
  say(error.message, true);
}

async function open(note = "") {
  const name = new URLSearchParams(location.hash.slice(1)).get("session");
  let found = null;
  if (name && !note) {
    try {
      found = await ask(`/api/sessions/${encodeURIComponent(name)}`);
    } catch (error) {
      note = `${error.message} A new one was opened.`;
    }
  }
  found ??= await ask("/api/sessions", posted({}));
  events?.close();
  events = null;
  session = found.id;
  history.replaceState(null, "", `#session=${found.id}`);
  drawn = "";
  await take(found);
  if (note) say(note, true);
}

// --- state

async function take(next) {
  const late = next.id !== session || (state?.id === session && next.serial < state.serial);
  if (late) return; // a newer answer overtook this one
  state = next;
  document.body.classList.toggle("small-images", state.size <= 64);
  $("title").textContent = state.title;
  $("numbers").value = ranges(state.shown);
  $("original").setAttribute("aria-pressed", state.original);
  say(state.message, state.failed);
  showSettings();
  showTiles();
  showRequest();
  showEdits();
  showSplit();
  showFiles();
  if (state.busy) follow();
  await fetchImages();
}

function imagesKey() {
  const marks = hot ? JSON.stringify(state.marks.map((m) => [m.what, m.number, m.mask])) + state.settings.layer : "";
  return `${state.id} ${state.version} ${marks}`;
}

async function fetchImages() {
  const wanted = [...new Set([...state.shown, ...state.marks.map((m) => m.number)])];
  const key = imagesKey();
  const missing = key === drawn ? wanted.filter((n) => !images.has(n)) : wanted;
  if (!missing.length) return;
  try {
    const found = new Map();
    for (let first = 0; first < missing.length; first += 32) {
      const part = missing.slice(first, first + 32);
      const answer = await ask(`${base()}/images?numbers=${part.join(",")}&matches=${hot ? 1 : 0}`);
      for (const [number, image] of Object.entries(answer)) found.set(Number(number), image);
    }
    if (key !== imagesKey()) return; // the state went on meanwhile, and its images are on their way
    images = new Map([...(key === drawn ? images : []), ...found]);
    drawn = key;
    showTiles();
    showRequest();
  } catch (error) {
    if (key !== imagesKey()) return;
    if (!hot) return complain(error);
    hot = false;
    $("matches").setAttribute("aria-pressed", "false");
    await fetchImages();
    say(error.message, true);
  }
}

function follow() {
  if (events) return;
  losses = [];
  const source = (events = new EventSource(`${base()}/events`));
  source.addEventListener("progress", (event) => {
    if (source !== events) return;
    state.busy = JSON.parse(event.data);
    if (state.busy.loss !== null) losses.push(state.busy.loss);
    showProgress();
  });
  const end = () => {
    source.close();
    if (source === events) events = null;
  };
  source.addEventListener("end", (event) => {
    end();
    take(JSON.parse(event.data));
    if (state.busy) follow();
  });
  source.onerror = async () => {
    if (source !== events) return;
    end();
    await new Promise((wait) => setTimeout(wait, 500));
    try {
      await take(await ask(base()));
    } catch (error) {
      complain(error);
    }
  };
  showProgress();
}

// --- what is shown

function say(text, bad = false) {
  $("message").textContent = text;
  $("message").classList.toggle("bad", bad);
}

function showStatus() {
  const busy = pending > 0 || !state || Boolean(state.busy);
  document.body.dataset.state = busy ? "busy" : "idle";
  document.body.setAttribute("aria-busy", busy);
  $("status").textContent = state?.busy ? `${state.busy.kind}…` : busy ? "Working…" : "Ready";
}

function showProgress() {
  const busy = state.busy;
  $("progress").hidden = $("cancel").hidden = !busy;
  for (const id of ["execute", "erase", "undo"]) $(id).disabled = Boolean(busy) || (id === "undo" && !state.edits.length);
  if (busy) {
    const loss = busy.loss === null ? "" : `, distance ${busy.loss.toPrecision(3)}`;
    $("phase").textContent = `${busy.phase}: ${busy.step} of ${busy.steps}${loss}`;
    $("meter").max = busy.steps;
    $("meter").value = busy.step;
    const most = Math.max(...losses, 1e-9);
    const points = losses.map((loss, i) => `${(100 * i) / Math.max(1, losses.length - 1)},${23 - (22 * loss) / most}`);
    $("losses").firstElementChild.setAttribute("points", points.join(" "));
  }
  showStatus();
}

function showSettings() {
  const layers = state.layers.map((l) => [l.number, `${l.number} (${l.side}×${l.side})`]);
  choices($("layer"), [["auto", "auto"], ...layers], state.settings.layer);
  choices($("rank"), [["auto", "auto"], ...[1, 2, 3, 5, 10].map((n) => [n, n])], state.settings.rank);
  $("steps").value = state.settings.steps;
  $("why").hidden = !state.candidates.length;
  const cell = (text) => make("td", { textContent: text });
  $("tried").replaceChildren(
    ...state.candidates.map((c) => make("tr", {}, cell(c.layer), cell(c.rank), cell(c.fit.toFixed(2)), cell(c.change.toFixed(3)))),
  );
  showProgress();
}

function choices(select, pairs, value) {
  if (!pairs.some(([known]) => known === value)) pairs.push([value, value]);
  const text = JSON.stringify(pairs);
  if (select.dataset.choices !== text) {
    select.replaceChildren(...pairs.map(([value, name]) => make("option", { value, textContent: name })));
    select.dataset.choices = text;
  }
  select.value = value;
}

function thumb(mark) {
  const image = images.get(mark.number);
  const mask = make("div", { className: "mask" });
  mask.style.maskImage = `url(${mark.mask})`;
  const remove = make("button", {
    textContent: "×",
    label: `Take back ${NAMES[mark.what].toLowerCase()} in image ${mark.number}`,
    dataset: { testid: `unmark-${mark.what}` },
    onclick: () => act("unmark", { what: mark.what, number: mark.number }),
  });
  const picture = make("img", { src: image?.after ?? "data:,", alt: `${NAMES[mark.what]}: marked in image ${mark.number}` });
  return make("div", { className: "thumb", title: `Image ${mark.number}` }, picture, mask, remove);
}

function showRequest() {
  for (const what of ["copy", "paste", "query"]) {
    const mark = state.marks.find((m) => m.what === what);
    const slot = $(`slot-${what}`);
    slot.classList.toggle("full", Boolean(mark));
    slot.replaceChildren(mark ? thumb(mark) : `Paint, then ${NAMES[what]}`);
  }
  $("query").hidden = !state.marks.some((m) => m.what === "query");
  const contexts = state.marks.filter((m) => m.what === "context");
  const empty = make("span", { className: "empty", textContent: "None yet: the rule will hold where things look like the place of the paste." });
  $("tray").replaceChildren(...(contexts.length ? contexts.map(thumb) : [empty]));
  $("warnings").replaceChildren(...state.marks.flatMap((m) => m.warnings.map((w) => make("li", { textContent: `Image ${m.number}: ${w}` }))));
}

function showEdits() {
  const focused = document.activeElement?.dataset?.testid;
  const last = state.edits.length - 1;
  const button = (text, label, testid, disabled, onclick) => make("button", { className: "quiet", textContent: text, label, disabled, onclick, dataset: { testid } });
  const items = state.edits.map((edit, i) => {
    const name = make("span", { className: "name", textContent: edit.name, title: edit.name });
    const about = make("span", { className: "about", textContent: `layer ${edit.layer}, rank ${edit.rank}` });
    const out = make("output", { textContent: edit.strength.toFixed(2) });
    const slider = make("input", {
      type: "range", min: 0, max: 2, step: 0.05, label: `Strength of ${edit.name}`, dataset: { testid: `strength-${i}` },
      oninput: () => (out.textContent = Number(slider.value).toFixed(2)),
      onchange: () => act("strength", { place: i, strength: Number(slider.value) }),
    });
    slider.value = edit.strength;
    const head = make("div", { className: "head" }, name,
      button("↑", `Move ${edit.name} up`, `up-${i}`, i === 0, () => act("move", { place: i, to: i - 1 })),
      button("↓", `Move ${edit.name} down`, `down-${i}`, i === last, () => act("move", { place: i, to: i + 1 })),
      button("×", `Remove ${edit.name}`, `remove-${i}`, false, () => act("remove", { place: i })));
    return make("li", {}, head, make("label", {}, about, slider, out));
  });
  $("edits").replaceChildren(...(items.length ? items : [make("li", { className: "empty", textContent: "None yet." })]));
  if (focused) document.querySelector(`[data-testid="${focused}"]`)?.focus();
}

function showFiles() {
  $("save-request").href = `${base()}/request.json`;
  $("save-edits").href = `${base()}/edits.safetensors`;
  $("save-grid").href = `${base()}/grid.png`;
}

function showSplit() {
  const split = state.original ? 100 : Number($("split").value);
  $("grid").style.setProperty("--split", `${split}%`);
  $("grid").classList.toggle("split", split > 0 && split < 100);
}

function showTiles() {
  for (const [number, tile] of tiles) {
    if (!state.shown.includes(number)) {
      tile.clear();
      tile.root.remove();
      tiles.delete(number);
    }
  }
  state.shown.forEach((number, place) => {
    if (!tiles.has(number)) tiles.set(number, new Tile(number, tools));
    const tile = tiles.get(number);
    const there = $("grid").children[place] ?? null;
    if (there !== tile.root) $("grid").insertBefore(tile.root, there);
    tile.show(images.get(number), state.marks.filter((m) => m.number === number).map((m) => [NAMES[m.what], m.what]));
  });
}

// Numbers as people write them: 0-3, 7.
function ranges(numbers) {
  const parts = [];
  for (const n of numbers) {
    const last = parts.at(-1);
    if (last && last[1] === n - 1) last[1] = n;
    else parts.push([n, n]);
  }
  return parts.map(([a, b]) => (a === b ? `${a}` : `${a}-${b}`)).join(", ");
}

// --- what is pressed

async function mark(what) {
  const tile = Tile.active;
  const mask = tile?.mask();
  if (!mask) return say("Paint on an image first.", true), false;
  const done = await act("mark", { what, number: tile.number, mask });
  if (done) tile.clear();
  return done;
}

async function search() {
  if (Tile.active?.mask()) {
    if (!(await mark("query"))) return;
  } else {
    const old = state.marks.find((m) => m.what === "query");
    if (old && state.marks.some((m) => m.what === "context")) await act("unmark", { what: "query", number: old.number });
  }
  await act("search");
}

function page(step) {
  const count = state.shown.length;
  const first = Math.max(0, Math.min(state.images - count, Math.min(...state.shown) + step * count));
  return act("show", { numbers: `${first}-${first + count - 1}` });
}

function shuffle() {
  const numbers = new Set();
  while (numbers.size < state.shown.length) numbers.add(Math.floor(Math.random() * state.images));
  return act("show", { numbers: [...numbers].join(",") });
}

async function upload(input, path) {
  const [file] = input.files;
  input.value = "";
  if (!file) return;
  try {
    await take(await ask(`${base()}/${path}`, { method: "PUT", body: file }));
  } catch (error) {
    complain(error);
  }
}

function settle() {
  const number = (text) => (text === "auto" ? text : Number(text));
  return act("settings", { ...state.settings, layer: number($("layer").value), rank: number($("rank").value), steps: Number($("steps").value) });
}

const on = (id, event, handler) => $(id).addEventListener(event, handler);
on("copy", "click", () => mark("copy"));
on("paste", "click", () => mark("paste"));
on("context", "click", () => mark("context"));
on("search", "click", search);
on("wipe-mask", "click", () => Tile.active?.clear());
on("clear", "click", () => act("clear"));
for (const id of ["execute", "erase"]) on(id, "click", async () => (await act(id, { name: $("name").value })) && ($("name").value = ""));
on("cancel", "click", () => act("cancel"));
on("undo", "click", () => act("undo"));
on("previous", "click", () => page(-1));
on("next", "click", () => page(1));
on("shuffle", "click", shuffle);
on("original", "click", () => act("original", { on: !state.original }));
on("split", "input", showSplit);
for (const id of ["layer", "rank", "steps"]) on(id, "change", settle);
on("load-request", "change", (event) => upload(event.target, "request"));
on("load-edits", "change", (event) => upload(event.target, "edits"));
on("numbers-form", "submit", (event) => {
  event.preventDefault();
  act("show", { numbers: $("numbers").value || "0" });
});
on("matches", "click", () => {
  hot = !hot;
  $("matches").setAttribute("aria-pressed", hot);
  fetchImages();
});
window.addEventListener("hashchange", () => open());

open().catch((error) => say(error.message, true));
