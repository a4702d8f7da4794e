"use strict";
// The panel that plays the providers, beside the world as its people see it. It is
// part of the console's page, and uses its el, t and at.

Object.assign(words, {
  p_title: ["Play the providers", "Jouer les fournisseurs"],
  p_lead: ["Somebody fills in the form", "Quelqu’un remplit le formulaire"],
  p_name: ["Name", "Nom"], p_phone: ["Phone", "Téléphone"], p_send: ["Fill in the form", "Remplir le formulaire"],
  p_then: ["And then this person…", "Puis cette personne…"], p_who: ["Who", "Qui"], p_nobody: ["nobody yet", "personne encore"],
  p_pay: ["pays", "paie"], p_change: ["changes plan", "change d’offre"], p_payagain: ["pays again", "paie à nouveau"], p_cancel: ["cancels", "résilie"],
  p_fails: ["payment fails", "paiement refusé"], p_times: ["{0} ×", "{0} ×"], p_failsN: ["Payment fails {0} times", "Paiement refusé {0} fois"],
  p_text: ["Text", "SMS"], p_texts: ["text it", "envoyer"], p_stop: ["text STOP", "envoyer STOP"],
  p_chaos: ["Webhooks misbehave", "Les événements s’emmêlent"],
  p_again: ["the last one ten times", "le dernier, dix fois"], p_backwards: ["the last five backwards", "les cinq derniers à l’envers"],
  p_breaks: ["Something breaks", "Quelque chose tombe"], p_consumers: ["Consumers", "Consommateurs"], p_vendors: ["Providers", "Fournisseurs"],
  p_down: ["{0} is up: switch it off", "{0} marche : l’arrêter"], p_up: ["{0} is down: switch it on", "{0} est arrêté : le relancer"],
  p_done: ["Done. The same in a terminal:", "Fait. La même chose dans un terminal :"], p_doing: ["…", "…"],
  p_first: ["Fill in the form: what it causes appears beside it, as it happens.", "Remplissez le formulaire : ce qui s’ensuit apparaît à côté, en direct."],
  p_phones: ["The phones", "Les téléphones"], p_quiet: ["No text yet.", "Aucun SMS pour l’instant."],
  p_blocked: ["Blocked at Twilio", "Bloqués chez Twilio"], p_nobodyBlocked: ["Nobody.", "Personne."],
  p_sheet: ["The spreadsheet", "Le tableur"], p_emptyTab: ["Nothing in this tab yet.", "Rien dans cet onglet pour l’instant."], p_left: ["{0} earlier rows are left out.", "{0} lignes plus anciennes sont omises."],
  p_lost: ["The sandbox does not answer.", "Le bac à sable ne répond pas."],
});

const names = ["Léa Petit", "Hugo Moreau", "Inès Laurent", "Jules Fontaine", "Manon Girard", "Nina Roussel", "Tom Chevalier", "Zoé Lambert"];
let nth = 0, scene = null, tab = "Leads", acting = false;
const phoneOf = n => `06 39 98 ${String(Math.floor(n / 100) % 100).padStart(2, "0")} ${String(n % 100).padStart(2, "0")}`;
const labelled = (text, control) => el("label", {}, el("span", { text }), control);

// act does one thing, and says which nats command shows the same.
async function act(name, fields) {
  if (acting) return false;
  acting = true;
  enable();
  const said = at("p-said");
  said.className = "";
  said.replaceChildren(el("span", { text: t("p_doing") }));
  let ok = false;
  try {
    const answer = await fetch("/panel/do/" + name, { method: "POST", body: new URLSearchParams(fields) });
    const body = await answer.json();
    ok = answer.ok;
    if (!ok) throw new Error(body.error);
    const b = el("button", { text: t("copy"), type: "button", cls: "copy" });
    b.addEventListener("click", () => copy(b, { t: body.command }));
    said.replaceChildren(el("span", { text: t("p_done") }), el("div", { cls: "action" }, el("code", { text: body.command }), b));
  } catch (e) {
    said.className = "wrong";
    said.replaceChildren(el("span", { text: e.message }));
  }
  acting = false;
  await look();
  enable();
  return ok;
}

const who = el("select", { id: "p-who" });
const chosen = () => scene && scene.people.find(p => p.id === who.value);
function button(id, text, action, fields = {}) {
  const b = el("button", { id, type: "button", text });
  b.addEventListener("click", () => act(action, { who: who.value, ...fields }));
  return b;
}

function build() {
  const name = el("input", { id: "p-name", autocomplete: "off", required: true, maxlength: 200 }), phone = el("input", { id: "p-phone", inputmode: "tel", autocomplete: "off", maxlength: 40 });
  const fill = () => { name.value = names[nth % names.length]; phone.value = phoneOf(110 + nth); nth++; };
  nth = Math.floor(Math.random() * 800) * 8;
  fill();
  const lead = el("form", { id: "p-lead" }, labelled(t("p_name"), name), labelled(t("p_phone"), phone), el("button", { cls: "primary", text: t("p_send") }));
  lead.addEventListener("submit", async e => {
    e.preventDefault();
    if (await act("lead", { name: name.value, phone: phone.value })) {
      const newest = scene && scene.people[scene.people.length - 1];
      if (newest) who.value = newest.id;
      fill();
      enable();
    }
  });
  const body = el("input", { id: "p-body", value: "STOP", autocomplete: "off", maxlength: 1600 });
  const text = el("form", { id: "p-text" }, labelled(t("p_text"), body), el("button", { id: "p-texts", text: t("p_texts") }));
  text.addEventListener("submit", e => { e.preventDefault(); act("text", { who: who.value, body: body.value }); });
  who.addEventListener("change", enable);

  const times = [1, 2, 3].map(n => { const b = button(`p-fail${n}`, t("p_times", n), "fail", { times: n }); b.setAttribute("aria-label", t("p_failsN", n)); return b; });
  at("panel").append(
    el("div", { cls: "head" }, el("h2", { id: "panel-title", text: t("p_title") })),
    el("div", { cls: "card" },
      el("h3", { text: t("p_lead") }), lead,
      el("h3", { text: t("p_then") }), labelled(t("p_who"), who),
      el("div", { cls: "buttons" }, button("p-pay", t("p_pay"), "pay"), button("p-change", t("p_change"), "change"), button("p-payagain", t("p_payagain"), "payagain"), button("p-cancel", t("p_cancel"), "cancel")),
      el("div", { cls: "buttons together" }, el("span", { text: t("p_fails") }), ...times), text,
      el("h3", { text: t("p_chaos") }), el("div", { cls: "buttons" }, button("p-again", t("p_again"), "again"), button("p-backwards", t("p_backwards"), "backwards")),
      el("h3", { text: t("p_breaks") }),
      el("div", { cls: "switches", id: "p-consumers", role: "group", "aria-label": t("p_consumers") }), el("div", { cls: "switches", id: "p-vendors", role: "group", "aria-label": t("p_vendors") }),
      el("div", { id: "p-said", role: "status" }, el("span", { text: t("p_first") }))));
  at("world").append(
    el("section", { "aria-labelledby": "phones-title" }, el("div", { cls: "head" }, el("h2", { id: "phones-title", text: t("p_phones") })), el("div", { id: "p-phones", tabindex: 0 })),
    el("section", { "aria-labelledby": "blocked-title" }, el("div", { cls: "head" }, el("h2", { id: "blocked-title", text: t("p_blocked") })), el("ul", { id: "p-blocked" })));
  at("below").append(el("section", { id: "p-sheet", "aria-labelledby": "sheet-title" },
    el("div", { cls: "head" }, el("h2", { id: "sheet-title", text: t("p_sheet") })), el("div", { id: "p-tabs", role: "tablist" }), el("div", { id: "p-rows", tabindex: 0 })));
  for (const id of ["panel", "world", "below"]) at(id).hidden = false;
  at("columns").classList.add("with-panel");
}

function enable() {
  const p = chosen();
  const off = { "p-pay": !p || p.client, "p-change": !p || !p.client, "p-payagain": !p || !p.owes, "p-cancel": !p || !p.client, "p-texts": !p,
    "p-fail1": !p || !p.client, "p-fail2": !p || !p.client, "p-fail3": !p || !p.client, "p-again": !scene || !scene.last.length, "p-backwards": !scene || !scene.last.length };
  for (const [id, is] of Object.entries(off)) at(id).disabled = acting || is;
}

function showWho() {
  const was = who.value;
  who.replaceChildren(...scene.people.map(p => el("option", { value: p.id, text: `${p.name} · ${p.phone}` })));
  if (!scene.people.length) who.append(el("option", { value: "", text: t("p_nobody") }));
  who.value = scene.people.some(p => p.id === was) ? was : scene.people.length ? scene.people[scene.people.length - 1].id : "";
}

// showSwitches changes what is there in place: a button that is being pressed must not
// be replaced.
function showSwitches(box, list, action) {
  for (const s of list) {
    let b = [...at(box).children].find(b => b.dataset.name === s.name);
    if (!b) {
      b = el("button", { type: "button", role: "switch", text: s.name, "data-name": s.name });
      b.addEventListener("click", () => act(action, { name: s.name, on: b.getAttribute("aria-checked") !== "true" }));
      at(box).append(b);
    }
    b.setAttribute("aria-checked", String(s.on));
    b.title = t(s.on ? "p_down" : "p_up", s.name);
  }
}

function showPhones() {
  const byPhone = new Map();
  for (const x of [...scene.texts].reverse()) {
    if (!byPhone.has(x.phone)) byPhone.set(x.phone, []);
    byPhone.get(x.phone).unshift(x);
  }
  const owner = number => (scene.people.find(p => p.phone === number) || {}).name || "";
  at("p-phones").replaceChildren(...[...byPhone].slice(0, 4).map(([number, texts]) => el("div", { cls: "phone-card", "data-phone": number },
    el("p", { cls: "meta" }, el("strong", { text: owner(number) }), el("span", { text: number })),
    ...texts.slice(-6).map(x => el("p", { cls: x.mine ? "bubble mine" : "bubble" }, el("span", { text: x.body }),
      el("small", { text: `${clock(x.at)}${x.status ? " · " + stateOf(x.status) : ""}` }))))));
  if (!byPhone.size) at("p-phones").append(el("p", { cls: "empty", text: t("p_quiet") }));
  at("p-blocked").replaceChildren(...scene.blocked.map(b => el("li", { text: b })));
  if (!scene.blocked.length) at("p-blocked").append(el("li", { cls: "none", text: t("p_nobodyBlocked") }));
}

function showSheet() {
  for (const x of scene.tabs) {
    const n = Math.max(0, (x.rows || []).length - 1) + (x.more || 0);
    let b = [...at("p-tabs").children].find(b => b.dataset.tab === x.name);
    if (!b) {
      b = el("button", { type: "button", role: "tab", "aria-controls": "p-rows", "data-tab": x.name });
      b.addEventListener("click", () => { tab = x.name; showSheet(); });
      at("p-tabs").append(b);
    }
    b.textContent = n ? `${x.name} ${number(n)}` : x.name;
    b.setAttribute("aria-selected", String(x.name === tab));
  }
  const x = scene.tabs.find(x => x.name === tab), rows = (x && x.rows) || [];
  const box = at("p-rows"), left = box.scrollLeft;
  if (rows.length < 2) {
    box.replaceChildren(el("p", { cls: "empty", text: t("p_emptyTab") }));
    return;
  }
  const [header, ...body] = rows;
  box.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...header.map(c => el("th", { scope: "col", text: c })))),
    el("tbody", {}, ...body.reverse().map(r => el("tr", {}, ...header.map((_, i) => el("td", { text: r[i] || "" })))))));
  if (x.more) box.append(el("p", { cls: "meta", text: t("p_left", number(x.more)) }));
  box.scrollLeft = left;
}

let shown = "";
async function look() {
  try {
    const answer = await fetch("/panel/state");
    const raw = await answer.text();
    if (raw === shown) return;
    shown = raw;
    scene = JSON.parse(raw);
  } catch {
    if (connection === "open") at("p-said").replaceChildren(el("span", { text: t("p_lost") }));
    return;
  }
  showWho();
  showSwitches("p-consumers", scene.consumers, "consumer");
  showSwitches("p-vendors", scene.vendors, "provider");
  showPhones();
  showSheet();
  enable();
}
async function keepLooking() {
  if (!document.hidden) await look();
  setTimeout(keepLooking, 400);
}

build();
enable();
keepLooking();
