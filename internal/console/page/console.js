"use strict";
// The console's page. It shows what /api/events tells. Whatever came with a webhook is
// set as text and never as markup.

const mostShown = 50;
const locale = french ? "fr-FR" : navigator.language || "en";
const at = id => document.getElementById(id);

// el makes an element: text, attributes and what is in it.
function el(tag, { text, cls, ...attributes } = {}, ...inside) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (cls) e.className = cls;
  for (const [k, v] of Object.entries(attributes)) {
    if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
    else if (v === true) e.setAttribute(k, "");
    else if (v !== undefined && v !== false) e.setAttribute(k, v);
  }
  e.append(...inside.filter(x => x !== null && x !== undefined));
  return e;
}
function svg(tag, attributes, ...inside) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...inside);
  return e;
}

const number = n => n.toLocaleString(locale);
const clock = (ms, seconds = true) => new Date(ms).toLocaleTimeString(locale, seconds ? {} : { hour: "2-digit", minute: "2-digit" });
function when(ms) {
  const d = new Date(ms);
  return d.toDateString() === new Date().toDateString() ? clock(ms) : d.toLocaleString(locale, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
}
function took(ms) {
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60000) return `${(ms / 1000).toLocaleString(locale, { maximumFractionDigits: 1 })} s`;
  if (ms < 5400000) return `${Math.round(ms / 60000)} min`;
  return `${Math.round(ms / 3600000)} h`;
}
function money(amount, currency) {
  try {
    const f = new Intl.NumberFormat(locale, { style: "currency", currency });
    return f.format(amount / 10 ** f.resolvedOptions().maximumFractionDigits);
  } catch { return `${amount} ${currency}`; }
}

// whole asks for a masked text as it is.
async function whole(ref) {
  const answer = await fetch("/api/whole?ref=" + encodeURIComponent(ref));
  if (!answer.ok) throw new Error(t("stale"));
  return (await answer.json()).text;
}

// masked shows a text. Where something was cut a click shows it whole.
function masked(m, cls = "") {
  if (!m || !m.t) return null;
  if (!m.r) return el("span", { text: m.t, cls });
  const b = el("button", { text: m.t, cls: `masked ${cls}`, type: "button", title: t("reveal"), "aria-label": `${m.t} (${t("reveal")})` });
  b.addEventListener("click", async () => {
    let text;
    try { text = await whole(m.r); } catch (e) { text = e.message; }
    b.replaceWith(el("span", { text, cls: `${cls} revealed` }));
  });
  return b;
}

// Health.
const light = { idle: "good", busy: "good", waiting: "warn", nobody: "bad", off: "none", unknown: "warn" };
let health = [];
function showHealth(list) {
  health = list;
  at("durables").replaceChildren(...list.map(d => {
    const detail = [];
    if (d.lag) detail.push(t("lag", number(d.lag)));
    if (d.hand) detail.push(t("hand", number(d.hand)));
    if (!detail.length && d.last && d.state !== "off") detail.push(t("quietSince", when(d.last)));
    if (d.state === "off" && d.why) detail.push(d.why);
    return el("li", { cls: `durable ${light[d.state]}`, "data-durable": d.name, "data-state": d.state },
      el("span", { cls: "dot", "aria-hidden": "true" }),
      el("strong", { text: d.name }), el("span", { cls: "role", text: t("d_" + d.name) }),
      el("span", { cls: "state", text: t(d.state) }), el("span", { cls: "detail", text: detail.join(" · ") || "\u00a0" }));
  }));
}

// Charts.
function showCharts(c) {
  at("charts").replaceChildren(...["webhooks", "leads", "texts", "optouts"].map(name => {
    const series = c[name], total = series.reduce((a, b) => a + b, 0), top = Math.max(...series);
    const label = t("chartLabel", t("c_" + name), number(total), number(top));
    const bars = series.map((n, i) => {
      const h = n ? Math.max(2, n / top * 40) : 1;
      return svg("rect", { x: i * 5, y: 44 - h, width: 3.6, height: h, rx: 1, class: n ? "bar" : "bar zero" },
        svg("title", {}, document.createTextNode(t("perMinute", number(n), clock(c.to - (series.length - 1 - i) * 60000, false)))));
    });
    return el("figure", { cls: `chart ${name}`, "data-total": total },
      el("figcaption", {}, el("span", { text: t("c_" + name) }), el("strong", { text: number(total) })),
      svg("svg", { viewBox: "0 0 299 45", role: "img", "aria-label": label, preserveAspectRatio: "none" }, ...bars),
      el("div", { cls: "axis", "aria-hidden": "true" }, el("span", { text: clock(c.to - 59 * 60000, false) }), el("span", { text: clock(c.to, false) })));
  }));
}

// Incidents.
let incidents = [];
async function copy(button, m) {
  let text = m.t;
  try { if (m.r) text = await whole(m.r); } catch (e) { button.textContent = e.message; return; }
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = t("copied");
    setTimeout(() => { button.textContent = t("copy"); }, 2000);
  } catch { // no clipboard over plain http: the command is selected instead
    const code = button.parentElement.querySelector("code");
    code.textContent = text;
    getSelection().selectAllChildren(code);
    button.textContent = t("select");
  }
}
let listed = "";
function showIncidents(list) {
  const same = JSON.stringify(list.map(i => [i.id.t, i.last_at, i.count, i.severity, i.reason.t, i.action.t]));
  if (same === listed && incidents.length) return; // a button that is being pressed must not be replaced
  listed = same;
  incidents = list;
  at("calm").hidden = list.length > 0;
  at("open").hidden = list.length === 0;
  at("open").textContent = number(list.length);
  at("todo").replaceChildren(...list.map(i => {
    const b = el("button", { text: t("copy"), type: "button", cls: "copy" });
    b.addEventListener("click", () => copy(b, i.action));
    return el("li", { cls: `incident ${i.severity}`, "data-incident": i.id.t },
      el("p", { cls: "meta" }, el("span", { cls: "tag", text: t("s_" + i.severity) }), el("span", { text: i.consumer }), el("time", { text: when(i.at) })),
      el("p", { cls: "reason" }, masked(i.reason)),
      i.count > 1 ? el("p", { cls: "meta", text: t("times", number(i.count), when(i.last_at)) }) : null,
      i.action.t ? el("div", { cls: "action" }, el("code", { text: i.action.t }), b) : null);
  }));
}

// The latest webhooks.
const entries = new Map(); // by sequence: { data, element }
let paused = false, held = new Map();
const title = w => known("w_" + w.kind) ? t("w_" + w.kind) : w.kind;
const stateOf = s => s.split(", ").map(x => known("s_" + x) ? t("s_" + x) : x.replaceAll("_", " ")).join(", ");

function showEffect(e, w) {
  const marks = e.marks.filter(m => m.s || e.marks.length === 1);
  const last = marks[marks.length - 1] || { s: "", ms: 0 };
  const label = known("k_" + e.kind) ? t("k_" + e.kind) : e.kind;
  const way = marks.map(m => `${stateOf(m.s)} ${took(m.ms)}`).join(" → ");
  return el("li", { cls: `effect ${e.kind.replace(".", " ")} ${last.s.replace(/\W.*/, "")}`, title: `${e.key.t}: ${way}`, "data-kind": e.kind, "data-state": last.s },
    el("span", { cls: "kind", text: label }), last.s ? el("span", { cls: "to", text: stateOf(last.s) }) : null,
    el("span", { cls: "ms", text: took(last.ms) }));
}

function showWebhook(w) {
  const facts = [];
  if (w.amount && w.currency) facts.push(el("span", { cls: "fact", text: money(w.amount, w.currency) }));
  if (w.attempt > 1) facts.push(el("span", { cls: "fact", text: `× ${w.attempt}` }));
  if (w.text && w.text.t) {
    facts.push(w.kind === "status" ? el("span", { cls: "fact", text: stateOf(w.text.t) }) : el("q", {}, masked(w.text)));
  }
  const effects = w.effects.map(e => showEffect(e, w));
  if (w.sheet !== undefined) {
    effects.push(el("li", { cls: "effect sheet", "data-kind": "sheet" }, el("span", { cls: "kind", text: t("sheet") }), el("span", { cls: "to", text: "✓" }),
      w.past ? null : el("span", { cls: "ms", text: took(w.sheet) })));
  }
  if (!effects.length) {
    effects.push(el("li", { cls: "effect nothing" }, el("span", { text: w.handled !== undefined || w.past ? t("handled") : t("stored") }),
      w.handled !== undefined ? el("span", { cls: "ms", text: took(w.handled) }) : null));
  }
  return el("li", { cls: `webhook ${w.provider}`, "data-seq": w.seq, "data-kind": w.kind },
    el("div", { cls: "what" },
      el("time", { text: when(w.at), datetime: new Date(w.at).toISOString() }),
      el("span", { cls: "provider", text: w.provider === "facebook" ? "meta" : w.provider }),
      el("strong", { text: title(w), title: w.subject.t }), masked(w.name, "name"), masked(w.phone, "phone"), ...facts,
      el("span", { cls: "seq", text: `#${w.seq}`, title: w.subject.t })),
    el("ul", { cls: "effects" }, ...effects));
}

function showWebhooks(list, anew) {
  const box = at("webhooks");
  if (anew) { box.replaceChildren(); entries.clear(); held.clear(); }
  for (const w of [...list].sort((a, b) => a.seq - b.seq)) {
    const old = entries.get(w.seq);
    if (paused && !old && !anew) {
      held.set(w.seq, w);
      if (held.size > mostShown) held.delete(held.keys().next().value);
      continue;
    }
    // One that has left the list does not come back when it changes.
    if (!old && entries.size >= mostShown && w.seq < Math.min(...entries.keys())) continue;
    const element = showWebhook(w);
    if (old) {
      // What somebody has clicked open stays open, and what has the focus keeps it.
      if (old.contains(document.activeElement) && document.activeElement !== document.body) continue;
      const shownNumber = old.querySelector(".phone.revealed"), hiddenNumber = element.querySelector(".phone.masked");
      if (shownNumber && hiddenNumber) hiddenNumber.replaceWith(shownNumber);
      old.replaceWith(element);
    } else {
      if (!anew) element.classList.add("fresh");
      const after = [...box.children].find(x => Number(x.dataset.seq) < w.seq);
      box.insertBefore(element, after || null);
    }
    entries.set(w.seq, element);
  }
  while (entries.size > mostShown) {
    const last = box.lastElementChild;
    entries.delete(Number(last.dataset.seq));
    last.remove();
  }
  at("none").hidden = entries.size > 0;
  at("none").textContent = t("noWebhooks");
  showPause();
}
function showPause() {
  at("pause").textContent = paused ? held.size ? t("paused", number(held.size)) : t("resume") : t("pause");
  at("pause").setAttribute("aria-pressed", String(paused));
}
at("pause").addEventListener("click", () => {
  paused = !paused;
  const came = [...held.values()];
  held.clear();
  if (!paused) showWebhooks(came);
  showPause();
});

// The sentence at the top.
let connection = "connecting", connected = true;
function summarise() {
  const s = at("summary");
  const gone = health.filter(d => d.state === "nobody").map(d => d.name);
  let text = t("fine"), cls = "good";
  if (incidents.length) { text = incidents.length === 1 ? t("todo1") : t("todoN", number(incidents.length)); cls = "warn"; }
  if (gone.length) { text = t("nobodyRuns", gone.join(", ")); cls = "bad"; }
  if (!connected) { text = t("noNATS"); cls = "bad"; }
  if (connection !== "open") { text = t(connection); cls = "none"; }
  if (s.textContent !== text) s.textContent = text;
  s.className = cls;
}

// Search: a trace, as a line through time.
async function search(id) {
  const box = at("trace"), steps = at("steps");
  box.hidden = false;
  at("trace-title").textContent = t("searching");
  steps.replaceChildren();
  let found;
  try {
    const answer = await fetch("/api/trace?id=" + encodeURIComponent(id));
    if (!answer.ok) throw new Error();
    found = await answer.json();
  } catch {
    at("trace-title").textContent = t("failed");
    return;
  }
  at("trace-title").textContent = found.steps.length ? t("found", id) : t("nothing");
  let before = 0;
  if (found.more) steps.append(el("li", { cls: "more", text: t("earlier", number(found.more)) }));
  for (const s of found.steps) {
    const gap = before ? s.at - before : 0;
    before = s.at;
    const where = s.sequence ? `${s.stream} #${s.sequence}` : "";
    steps.append(el("li", { cls: `step ${s.kind}` },
      el("time", { text: when(s.at), datetime: new Date(s.at).toISOString() }), el("span", { cls: "ms", text: gap > 0 ? `+${took(gap)}` : "" }),
      el("div", {}, masked(s.title, "title"), s.detail ? el("p", {}, masked(s.detail)) : null,
        el("p", { cls: "where" }, masked(s.key) || masked(s.subject), where ? el("span", { text: ` ${where}` }) : null))));
  }
  at("trace-title").focus({ preventScroll: true });
  box.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}
at("search").addEventListener("submit", e => {
  e.preventDefault();
  const id = at("who").value.trim();
  if (id) search(id);
});
at("trace-close").addEventListener("click", () => { at("trace").hidden = true; at("who").focus(); });

// What comes.
function show(v) {
  connected = v.connected;
  if (v.whole) {
    at("search").hidden = !v.search;
  }
  if (v.health) showHealth(v.health);
  if (v.charts) showCharts(v.charts);
  if (v.incidents) showIncidents(v.incidents);
  if (v.whole || v.webhooks) showWebhooks(v.webhooks || [], Boolean(v.whole));
  summarise();
}
function listen() {
  const events = new EventSource("/api/events");
  events.onopen = () => { connection = "open"; summarise(); };
  events.onmessage = e => { connection = "open"; show(JSON.parse(e.data)); };
  events.onerror = () => {
    connection = "lost";
    summarise();
    if (events.readyState === EventSource.CLOSED) { events.close(); setTimeout(listen, 2000); } // refused: the browser does not try again
  };
}

document.documentElement.lang = french ? "fr" : "en";
for (const e of document.querySelectorAll("[data-t]")) e.textContent = t(e.dataset.t);
for (const e of document.querySelectorAll("[data-placeholder]")) e.placeholder = t(e.dataset.placeholder);
at("trace-title").tabIndex = -1;
summarise();
listen();
