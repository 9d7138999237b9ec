// Loads the data while the page is visible, and draws it.
const EVERY_MS = 2000;
const NUM_SAMPLES = 151; // five minutes
const WIDTH = 600, HEIGHT = 176, LEFT = 34, BOTTOM = 18, TOP = 8;
const words = JSON.parse(document.body.dataset.words);
const samples = []; // {at, running, waiting, rate}, the newest last
let last = null;

const byId = (id) => document.getElementById(id);
const word = (name) => words[name] ?? name;
const tell = (id, text) => { byId(id).textContent = text; };

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function duration(seconds) {
  if (seconds >= 10) return `${seconds.toFixed(0)} s`;
  return seconds >= 1 ? `${seconds.toFixed(1)} s` : `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
}

function showNumbers(it, rate) {
  tell("status", word(it.status));
  byId("status").classList.toggle("ready", it.status === "ready");
  tell("broken", it.broken ?? "");
  byId("broken").hidden = it.broken === null;
  tell("running", it.running);
  tell("running-max", ` / ${it.max_running}`);
  byId("running-meter").value = it.running / it.max_running;
  tell("waiting", it.waiting);
  tell("waiting-max", ` / ${it.max_waiting}`);
  byId("waiting-meter").value = it.max_waiting ? it.waiting / it.max_waiting : 0;
  tell("rate", rate === null ? "–" : rate.toFixed(rate < 10 ? 1 : 0));
  tell("kv", `${(100 * it.kv_cache_usage).toFixed(1)} %`);
  byId("kv-meter").value = it.kv_cache_usage;
}

function slotsOf(thread) {
  const cell = element("td");
  const slots = element("span", "", "slots");
  slots.setAttribute("aria-hidden", "true");
  for (let i = 0; i < Math.min(thread.slots, 256); i++) {
    slots.append(element("span", "", i < thread.running ? "slot taken" : "slot"));
  }
  cell.append(slots, element("span", `${thread.running} / ${thread.slots}`, "visually-hidden"));
  return cell;
}

function showThreads(threads) {
  const rows = threads.map((thread) => {
    const row = element("tr");
    row.append(
      element("th", thread.name.replace("chatstream-generation-", "")),
      element("td", thread.fault ?? word(thread.state), thread.fault ? "bad" : ""),
      slotsOf(thread),
      element("td", thread.steps.toLocaleString(document.documentElement.lang), "right"),
      element("td", words.ago.replace("{}", thread.last_step_age_sec.toFixed(1)), "right"),
    );
    row.firstChild.scope = "row";
    return row;
  });
  byId("threads").replaceChildren(...rows);
}

function showLatencies(latencies) {
  for (const [name, values] of Object.entries(latencies)) {
    const cells = byId(`latency-${name}`).querySelectorAll("td");
    cells.forEach((cell, i) => { cell.textContent = values === null ? "–" : duration(values[i]); });
  }
}

function showEnds(it) {
  const counts = [
    ...Object.entries(it.finished).map(([name, num]) => [name, num, name === "error"]),
    ...Object.entries(it.refused).map(([name, num]) => [`${words.refused}: ${name}`, num, name === "engine_broken"]),
    ...Object.entries(it.replaced).map(([name, num]) => [`${words.replaced}: ${name}`, num, true]),
  ];
  const rows = counts.map(([name, num, isBad]) => {
    const row = element("tr", "", isBad ? "bad" : "");
    row.append(element("td", name), element("td", num.toLocaleString(document.documentElement.lang), "right"));
    return row;
  });
  if (!rows.length) {
    const row = element("tr");
    row.append(element("td", words.nothing));
    rows.push(row);
  }
  byId("ends").replaceChildren(...rows);
}

function svg(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function niceMax(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((digit) => digit * power).find((top) => top >= value);
}

// Draw one line for each of `names`, with the newest sample at the right edge.
function draw(id, names) {
  const chart = byId(id);
  const width = chart.clientWidth || WIDTH;
  const most = niceMax(Math.max(...samples.flatMap((sample) => names.map((name) => sample[name] ?? 0))));
  const end = samples.at(-1).at;
  const x = (at) => width - (end - at) / ((NUM_SAMPLES - 1) * EVERY_MS / 1000) * (width - LEFT);
  const y = (value) => HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - TOP);
  const parts = [0, most / 2, most].flatMap((value) => [
    svg("line", { class: "grid", x1: LEFT, x2: width, y1: y(value), y2: y(value) }),
    svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)),
  ]);
  parts.push(
    svg("text", { x: LEFT, y: HEIGHT - 2 }, words.minutes_ago.replace("{}", (NUM_SAMPLES - 1) * EVERY_MS / 60000)),
    svg("text", { x: width, y: HEIGHT - 2, "text-anchor": "end" }, words.now),
  );
  names.forEach((name, i) => {
    const known = samples.filter((sample) => sample[name] !== null);
    if (!known.length) return;
    const points = known.map((sample) => `${x(sample.at).toFixed(1)},${y(sample[name]).toFixed(1)}`);
    const kind = i ? "second" : "first";
    const floor = `${x(known.at(-1).at)},${y(0)} ${x(known[0].at)},${y(0)}`;
    parts.push(svg("polygon", { class: `area ${kind}`, points: `${points.join(" ")} ${floor}` }));
    parts.push(svg("polyline", { class: `line ${kind}`, points: points.join(" ") }));
  });
  chart.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  chart.replaceChildren(...parts);
}

function show(it) {
  // Counters start at zero when the server restarts.
  const isSame = last !== null && it.clock_sec > last.clock_sec && it.generation_tokens >= last.generation_tokens;
  const rate = isSame ? (it.generation_tokens - last.generation_tokens) / (it.clock_sec - last.clock_sec) : null;
  last = it;
  samples.push({ at: performance.now() / 1000, running: it.running, waiting: it.waiting, rate });
  samples.splice(0, samples.length - NUM_SAMPLES);
  showNumbers(it, rate);
  showThreads(it.threads);
  showLatencies(it.latencies);
  showEnds(it);
  draw("requests-chart", ["running", "waiting"]);
  draw("rate-chart", ["rate"]);
}

async function ask() {
  if (!document.hidden) {
    try {
      const response = await fetch("status.json", { signal: AbortSignal.timeout(5000) });
      if (!response.ok) throw new Error(response.statusText);
      show(await response.json());
      byId("lost").hidden = true;
    } catch {
      byId("lost").hidden = false;
    }
  }
  setTimeout(ask, EVERY_MS);
}

ask();
