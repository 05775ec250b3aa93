// Asks for the state once a second and shows it. Text only ever goes into text nodes.
"use strict";

const WINDOW_MS = 60000;
const history = new Map();

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function show(id, ...children) {
  document.getElementById(id).replaceChildren(...children);
}

const number = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");
const score = (s) => (s === null || s === undefined ? "–" : s.toPrecision(3));

function bytes(n) {
  for (const [unit, size] of [["TB", 1e12], ["GB", 1e9], ["MB", 1e6]]) {
    if (n >= size) return `${(n / size).toFixed(n >= 100 * size ? 0 : 1)} ${unit}`;
  }
  return `${Math.round(n / 1e3)} kB`;
}

function ago(since, now) {
  const seconds = Math.max(0, Math.round((new Date(now) - new Date(since)) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

function chip(label, value, kind) {
  return element("li", `chip ${kind || ""}`, element("b", "", value), element("span", "", label));
}

function chips(state) {
  const { broker, store } = state;
  const made = [];
  if (broker.state === "disabled") made.push(chip("broker", "off"));
  else made.push(chip("broker", broker.state === "up" ? "connected" : "away", broker.state === "up" ? "" : "bad"));
  const waiting = store.unpublished;
  const oldest = store.oldest_unpublished ? `, oldest ${ago(store.oldest_unpublished, state.now)}` : "";
  if (broker.state !== "disabled") made.push(chip(`to publish${oldest}`, number(waiting), waiting > 1000 ? "odd" : ""));
  if (store.failing) made.push(chip("store", "cannot write", "bad"));
  if (store.pressed) made.push(chip("store", "disk full", "bad"));
  if (store.thinning) made.push(chip("evidence", "left out", "odd"));
  if (store.slow) made.push(chip("store", "slow disk", "odd"));
  if (store.free_bytes !== null && store.disk_bytes) {
    const share = store.free_bytes / store.disk_bytes;
    made.push(chip(`free of ${bytes(store.disk_bytes)}`, bytes(store.free_bytes), share < 0.03 ? "bad" : share < 0.1 ? "odd" : ""));
  }
  made.push(chip("running for", ago(new Date(new Date(state.now) - state.uptime_seconds * 1000), state.now)));
  return made;
}

function perMinute(camera, parts, now) {
  const seen = history.get(camera) || [];
  if (seen.length && seen[seen.length - 1][1] > parts) seen.length = 0;
  seen.push([now, parts]);
  while (seen.length > 2 && now - seen[0][0] > WINDOW_MS) seen.shift();
  history.set(camera, seen);
  const [then, before] = seen[0];
  return now - then < 3000 ? null : ((parts - before) * 60000) / (now - then);
}

function wordFor(camera) {
  if (camera.stalled) return ["bad", "✕ HANGS", `the ${camera.stalled} stage has hung`];
  if (camera.model_fault) return ["bad", "✕ NO MODEL", camera.model_fault];
  if (camera.state === "down") return ["bad", "✕ DOWN", camera.reason];
  if (camera.state === "opening") return ["off", "… OPENING", camera.reason];
  const last = camera.last;
  if (camera.state === "ended") return ["off", "■ ENDED", last ? "the replay has ended" : "no part came"];
  if (!last) return ["off", "… WAITING", "no part yet"];
  if (last.decision === "ok") return ["good", "✓ OK", null];
  if (last.decision === "anomalous") return ["bad", "✕ REJECT", null];
  return ["odd", "! UNINSPECTED", `${last.reason}: ${last.detail}`];
}

function scoreBar(last) {
  if (!last || last.score === undefined || !(last.threshold > 0)) return null;
  const bar = element("div", "bar", element("i"), element("u"));
  bar.firstChild.style.width = `${Math.min(100, Math.max(0, (last.score / last.threshold) * 66.66))}%`;
  bar.title = `score ${score(last.score)}, threshold ${score(last.threshold)}`;
  return bar;
}

function count(kind, label, value) {
  return element("div", kind, element("b", value > 0 ? "some" : "", number(value)), element("span", "", label));
}

function card(camera, state) {
  const c = camera.counters;
  const uninspected = c.uninspected_camera + c.uninspected_overload + c.uninspected_deadline + c.uninspected_model + c.uninspected_internal;
  const [kind, word, why] = wordFor(camera);
  const last = camera.last;
  const named = element("div", "name", camera.name, element("span", "", last ? `part ${last.part_id ?? "#" + last.sequence}` : ""));
  const top = element("div", "state", named, element("div", "word", word), why ? element("div", "why", why) : scoreBar(last));
  const counts = element("div", "counts", count("good", "ok", c.ok), count("bad", "anomalous", c.anomalous), count("odd", "uninspected", uninspected));
  const rate = perMinute(camera.name, c.ok + c.anomalous + uninspected, new Date(state.now).getTime());
  const foot = element("div", "foot");
  if (rate !== null) foot.append(element("span", "", `${rate.toFixed(rate < 10 ? 1 : 0)} parts/min`));
  if (camera.latency_ms.p50 !== null) foot.append(element("span", "", `≤ ${camera.latency_ms.p50} ms half, ≤ ${camera.latency_ms.p99 ?? "10000+"} ms of 99 %`));
  if (last && last.score !== undefined) foot.append(element("span", "", `score ${score(last.score)} of ${score(camera.threshold)}`));
  if (camera.last_frame_at) foot.append(element("span", "", `last frame ${ago(camera.last_frame_at, state.now)} ago`));
  foot.append(element("span", "", `${camera.model.name} ${camera.model.version}`));
  const warnings = camera.warnings.map((warning) => element("p", "warning", warning));
  return element("article", `camera ${kind}`, top, counts, ...warnings, foot);
}

function picture(alarm, kind) {
  const path = `/evidence/${alarm.camera}/${alarm.sequence}/${kind}`;
  // By its id a picture is told from one of another store that had the same number.
  const id = `?id=${alarm.id}`;
  const image = element("img");
  image.alt = `${kind} of ${alarm.camera} ${alarm.sequence}`;
  image.loading = "lazy";
  image.onerror = () => link.remove();
  image.src = `${path}/small${id}`;
  const link = element("a", "", image);
  link.href = path + id;
  link.target = "_blank";
  return link;
}

function alarmCard(alarm) {
  const uninspected = alarm.decision === "uninspected";
  const pictures = element("div", "pictures");
  if (alarm.evidence) pictures.append(picture(alarm, "picture"));
  if (alarm.evidence && !uninspected) pictures.append(picture(alarm, "heatmap"));
  if (!alarm.evidence) pictures.append(element("span", "none", "no picture was kept"));
  const time = new Date(alarm.captured_at);
  const what = uninspected ? `not inspected: ${alarm.reason}` : `score ${score(alarm.score)}`;
  const beside = uninspected ? "" : `limit ${score(alarm.threshold)}`;
  const words = element("div", "words",
    element("div", "row", element("b", "", what), element("span", "", beside)),
    element("div", "row", element("p", "", `${alarm.camera} · ${alarm.part_id ?? "#" + alarm.sequence}`), element("p", "", time.toLocaleTimeString("en-GB"))),
    uninspected ? element("p", "", alarm.detail) : null);
  const made = element("article", `alarm ${uninspected ? "odd" : ""}`, pictures, words);
  made.dataset.id = alarm.id;
  return made;
}

// Cards that are there already stay, so that their pictures are not loaded again.
function alarms(list) {
  const box = document.getElementById("alarms");
  const there = new Map([...box.children].map((child) => [child.dataset.id, child]));
  box.replaceChildren(...list.map((alarm) => there.get(alarm.id) || alarmCard(alarm)));
  document.getElementById("last").hidden = list.length === 0;
  document.getElementById("quiet").hidden = list.length !== 0;
}

function tell(id, text) {
  const made = document.getElementById(id);
  made.hidden = !text;
  made.textContent = text;
}

function render(state) {
  document.title = `${state.faults.length ? "✕ " : ""}${state.box} – inspectord`;
  show("box", state.box);
  show("program", `inspectord ${state.version}`);
  show("chips", ...chips(state));
  show("cameras", ...state.cameras.map((camera) => card(camera, state)));
  alarms(state.alarms);
  // A camera's own stand on its card.
  tell("banner", state.faults.filter((fault) => !fault.startsWith("camera ")).join("\n"));
  tell("notice", state.broker.warning);
}

async function refresh() {
  try {
    const answer = await fetch("/api/state", { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    render(await answer.json());
  } catch {
    tell("banner", "The box does not answer. What is shown below is old.");
  }
  setTimeout(refresh, document.hidden ? 5000 : 1000);
}

refresh();
