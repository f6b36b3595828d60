// The script of a report. It works from file://, where nothing can be fetched: a patient's data comes as a script of its
// own (patients/KEY/data.js), which calls showPatient. The address says what is shown: #PATIENT/SLICE.
"use strict";

const at = (id) => document.getElementById(id);
const cards = [...document.querySelectorAll(".card")];
const loaded = new Map(); // a patient's data by its key
let shown = null; // {card, data, slice}: what is on the screen, null on the first one
let writing = 0; // the timer that writes the address

// --- the first screen -----------------------------------------------------------------------------------------------

function sortCards() {
  const by = at("sort").value;
  const sign = by === "volume" || by === "doubts" ? -1 : 1; // the largest first
  const place = (card) => Number(card.dataset.place);
  const value = (card) => sign * Number(card.dataset[by]);
  at("cards").append(...cards.sort((a, b) => value(a) - value(b) || place(a) - place(b)));
}

function findCards() {
  const wanted = at("find").value.trim().toLowerCase();
  for (const card of cards) card.hidden = !card.dataset.link.toLowerCase().includes(wanted);
  const left = cards.filter((card) => !card.hidden).length;
  at("matches").textContent = wanted ? `${left} of ${cards.length}` : "";
}

// --- which screen: the address decides ------------------------------------------------------------------------------

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // typed by hand
  }
}

function follow() {
  const [name, label] = location.hash.slice(1).split("/").map(decode);
  const card = cards.find((one) => one.dataset.link === name);
  at("overview").hidden = Boolean(card);
  at("patient").hidden = !card;
  if (!card) {
    const left = shown && shown.card;
    shown = null;
    document.title = document.querySelector("#overview h1").textContent;
    if (left) left.querySelector("a").focus();
  } else if (shown && shown.card === card && shown.data) {
    const slice = findSlice(shown.data, label);
    if (slice !== shown.slice) show(slice);
  } else {
    open(card, label);
  }
}

function open(card, label) {
  const key = card.dataset.key;
  shown = { card, data: null, slice: 0, label };
  at("name").textContent = card.querySelector("h3").textContent;
  document.title = at("name").textContent;
  clear();
  window.scrollTo(0, 0);
  at("name").focus({ preventScroll: true });
  if (loaded.has(key)) return begin();
  at("waiting").hidden = false;
  const script = document.createElement("script");
  script.src = `patients/${key}/data.js`;
  script.onerror = () => complain("The files of this patient are missing beside this page; make the report again.");
  document.head.append(script);
}

function showPatient(key, data) {
  loaded.set(key, data);
  if (shown && shown.card.dataset.key === key) begin();
}

function begin() {
  shown.data = loaded.get(shown.card.dataset.key);
  at("waiting").hidden = true;
  const slices = shown.data.slices;
  const curve = shown.card.querySelector(".curve");
  at("area").replaceChildren(...(curve ? [curve.cloneNode(true)] : []));
  at("slider").max = Math.max(slices.length - 1, 0);
  at("slider").disabled = slices.length < 2;
  at("truth-choice").hidden = !slices.some((one) => one.truth !== undefined);
  at("heat-choice").hidden = !slices.some((one) => one.heat);
  if (slices.length) show(findSlice(shown.data, shown.label));
  else complain("The run came to no slice of this patient.");
}

// Without a slice in the address: the one with most tumour, where the outline is the longest.
function findSlice(data, label) {
  const found = data.slices.findIndex((one) => one.label === label);
  if (found >= 0) return found;
  const sizes = data.slices.map((one) => one.area || 0);
  return Math.max(sizes.indexOf(Math.max(...sizes)), 0);
}

// --- one slice ------------------------------------------------------------------------------------------------------

function show(number) {
  const { card, data } = shown;
  const one = data.slices[number];
  shown.slice = number;
  const folder = `patients/${card.dataset.key}/`;
  put("slice", one.picture && folder + one.picture, one);
  put("heat", one.heat && folder + one.heat, one);
  at("mask").setAttribute("d", one.mask || "");
  at("truth").setAttribute("d", one.truth || "");
  at("slider").value = number;
  at("slider").setAttribute("aria-valuetext", `slice ${one.label}, ${number + 1} of ${data.slices.length}`);
  at("now").textContent = `Slice ${one.label}`;
  at("under").textContent = `${number + 1} of ${data.slices.length}${one.score ? `, ${one.score}` : ""}`;
  at("reasons").replaceChildren(...one.doubts.map((reason) => element("li", reason)));
  at("facts").replaceChildren(...one.facts.map(([term, text]) => pair(term, text)));
  pair("File", one.name, at("facts"));
  complain(one.problem);
  const curve = at("area").firstElementChild;
  if (curve) mark(curve, number);
  look();
  for (const step of [1, -1, 2, -2]) preload(folder, data.slices[number + step]);
  clearTimeout(writing); // browsers allow few changes of the address a second
  writing = setTimeout(writeAddress, 150);
}

function writeAddress() {
  if (!shown || !shown.data || !shown.data.slices.length) return;
  const slice = shown.data.slices[shown.slice].label;
  const address = `#${encodeURIComponent(shown.card.dataset.link)}/${encodeURIComponent(slice)}`;
  if (location.hash !== address) location.replace(address);
}

function put(id, file, one) {
  const image = at(id);
  image.setAttribute("width", one.width);
  image.setAttribute("height", one.height);
  if (file) image.setAttribute("href", file);
  else image.removeAttribute("href");
}

function preload(folder, one) {
  if (one && one.picture) new Image().src = folder + one.picture;
}

function mark(curve, number) {
  const cursor = curve.querySelector(".cursor") || curve.appendChild(document.createElementNS(curve.namespaceURI, "path"));
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("d", `M${number} 0h1v100h-1z`);
}

function clear() {
  for (const id of ["area", "reasons", "facts"]) at(id).replaceChildren();
  for (const id of ["now", "under"]) at(id).textContent = "";
  for (const id of ["mask", "truth"]) at(id).setAttribute("d", "");
  for (const id of ["slice", "heat"]) at(id).removeAttribute("href");
  at("zoom").value = "1";
  complain("");
}

function complain(problem) {
  at("problem").textContent = problem;
  at("problem").hidden = !problem;
}

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text; // never HTML: names are other people's
  made.dir = "auto";
  return made;
}

function pair(term, text, list) {
  const row = document.createElement("div");
  row.append(element("dt", term), element("dd", text));
  if (list) list.append(row);
  return row;
}

// --- how it is looked at --------------------------------------------------------------------------------------------

function look(middle) {
  const form = new FormData(at("controls"));
  const channel = form.get("channel");
  const light = `brightness(${at("brightness").value}%)`;
  at("slice").style.filter = channel === "all" ? light : `url("#channel-${channel}") ${light}`;
  at("mask").classList.toggle("filled", at("fill-mask").checked);
  at("mask").style.opacity = at("opacity").value / 100;
  at("heat").style.opacity = at("opacity").value / 100;
  at("mask").style.display = at("show-mask").checked ? "" : "none";
  at("truth").style.display = at("show-truth").checked ? "" : "none";
  at("heat").style.display = at("show-heat").checked ? "" : "none";
  if (shown && shown.data && shown.data.slices.length) frame(middle);
}

// Show a part of the picture: zoomed around the tumour, or around `middle`.
function frame(middle) {
  const one = shown.data.slices[shown.slice];
  const zoom = Number(at("zoom").value);
  const [width, height] = [one.width / zoom, one.height / zoom];
  const [x, y] = zoom === 1 ? [one.width / 2, one.height / 2] : middle || shown.middle || one.middle || [one.width / 2, one.height / 2];
  shown.middle = zoom === 1 ? null : [clamp(x, width / 2, one.width - width / 2), clamp(y, height / 2, one.height - height / 2)];
  const [left, top] = shown.middle || [x, y];
  at("view").setAttribute("viewBox", `${left - width / 2} ${top - height / 2} ${width} ${height}`);
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function drag(event) {
  if (!(event.buttons & 1) || !shown || !shown.middle) return;
  const scale = at("view").getScreenCTM().a;
  look([shown.middle[0] - event.movementX / scale, shown.middle[1] - event.movementY / scale]);
}

function turn(event) {
  if (event.ctrlKey || !shown || !shown.data) return; // the browser's own zoom
  event.preventDefault();
  step(Math.sign(event.deltaY));
}

// --- keys -----------------------------------------------------------------------------------------------------------

function step(by) {
  const next = shown.slice + by;
  if (shown.data && next >= 0 && next < shown.data.slices.length) show(next);
}

function nextDoubt() {
  const slices = shown.data.slices;
  const turned = slices.map((_, i) => (shown.slice + 1 + i) % slices.length);
  const found = turned.find((i) => slices[i].doubts.length);
  if (found !== undefined) show(found);
}

function go(by) {
  const visible = cards.filter((card) => !card.hidden);
  const next = visible[visible.indexOf(shown.card) + by];
  if (next) location.hash = encodeURIComponent(next.dataset.link);
}

function flip(id) {
  if (!at(id).closest("label").hidden) at(id).checked = !at(id).checked;
  look();
}

function nudge(id, by) {
  at(id).value = Number(at(id).value) + by * Number(at(id).step);
  look();
}

function choose(number) {
  at("controls").elements.channel[number].checked = true;
  look();
}

function turnZoom() {
  at("zoom").selectedIndex = (at("zoom").selectedIndex + 1) % at("zoom").length;
  look();
}

const KEYS = {
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  ArrowUp: () => step(-1),
  ArrowDown: () => step(1),
  Home: () => show(0),
  End: () => show(shown.data.slices.length - 1),
  " ": () => flip("show-mask"),
  f: () => flip("fill-mask"),
  t: () => flip("show-truth"),
  p: () => flip("show-heat"),
  "+": () => nudge("opacity", 1),
  "=": () => nudge("opacity", 1),
  "-": () => nudge("opacity", -1),
  "[": () => nudge("brightness", -1),
  "]": () => nudge("brightness", 1),
  z: turnZoom,
  n: nextDoubt,
  ",": () => go(-1),
  ".": () => go(1),
};

function press(event) {
  if (!shown || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    writeAddress(); // the browser's way back leads to this slice
    location.hash = "";
  }
  if (!shown.data || !shown.data.slices.length) return;
  const target = event.target;
  // what has the focus keeps the keys that it uses itself: arrows move a slider, space presses a button
  const own = target.matches("select, input") ? /^(Arrow|Home|End)/ : null;
  if ((own && own.test(event.key)) || (event.key === " " && target.matches("button, a, select, input:not(#slider)"))) return;
  const act = /^[1-4]$/.test(event.key) ? () => choose(Number(event.key) - 1) : KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

at("sort").addEventListener("change", sortCards);
at("find").addEventListener("input", findCards);
at("slider").addEventListener("input", () => show(Number(at("slider").value)));
at("controls").addEventListener("input", () => look());
at("controls").addEventListener("submit", (event) => event.preventDefault());
at("patient-before").addEventListener("click", () => go(-1));
at("patient-behind").addEventListener("click", () => go(1));
at("view").addEventListener("wheel", turn, { passive: false });
at("view").addEventListener("pointermove", drag);
window.addEventListener("hashchange", follow);
document.addEventListener("keydown", press);
follow();
