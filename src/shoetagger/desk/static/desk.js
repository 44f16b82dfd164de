// The picture desk: moving about, editing and undoing by mouse or by keyboard alone.
// The server renders every card; here is only which one is meant, and what is asked of the server.

const root = document.body.dataset.root;
const mayWrite = document.body.dataset.writes === "yes";
const grid = document.querySelector("[role=grid]");
const single = document.getElementById("single");
const palette = document.querySelector(".palette");
const toast = document.getElementById("toast");

// --- light or dark, as the page around this one ---

function followTheme() {
  try {
    const outer = window.parent.document.documentElement;
    if (window.parent === window) return;
    const copy = () => {
      document.documentElement.dataset.theme = outer.classList.contains("dark") ? "dark" : "light";
    };
    copy();
    new MutationObserver(copy).observe(outer, { attributeFilter: ["class"] });
  } catch {
    // Around this page is one of another origin: the system's preference counts.
  }
}

// --- which pictures are meant ---

const cards = () => (single ? [single] : [...document.querySelectorAll("[role=gridcell]")]);
const groupsOf = (card) => JSON.parse(card.dataset.groups);
const wholeOf = (card) => JSON.parse(card.dataset.whole);
let current = null;

// Pictures of the queue are looked at large from there: what is said there is said of the queue.
const from = (page) => new URL(page, location).pathname.split("/").pop();
const origin = document.body.dataset.origin
  ?? (single && document.referrer && from(document.referrer) === "queue" ? "queue" : "browse");

function chosen() {
  const selected = cards().filter((card) => card.getAttribute("aria-selected") === "true");
  if (selected.length) return selected;
  return current ? [current] : [];
}

function goTo(card, focus = true) {
  if (!card) return;
  for (const other of cards()) other.tabIndex = other === card ? 0 : -1;
  current = card;
  if (focus) card.focus();
  describe();
}

function neighbour(key) {
  const all = cards();
  const at = all.indexOf(current);
  const below = all.findIndex((card) => card.offsetTop > all[0].offsetTop);
  const columns = below < 0 ? all.length : below;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[key];
  if (key === "Home") return all[0];
  if (key === "End") return all.at(-1);
  return all[at + step];
}

function describe() {
  if (!palette) return;
  const meant = chosen();
  const names = meant.map((card) => card.getAttribute("aria-label"));
  document.getElementById("aim").textContent =
    meant.length > 1 ? `${meant.length} pictures selected` : names[0] ?? "No picture chosen";
  for (const button of palette.querySelectorAll("[data-tag]")) {
    const group = button.closest("[data-group]").dataset.group;
    const having = meant.filter((card) => groupsOf(card)[group].tags.includes(button.dataset.tag));
    const all = meant.length > 0 && having.length === meant.length;
    button.setAttribute("aria-pressed", all ? "true" : having.length ? "mixed" : "false");
  }
  const judged = meant.filter((card) => wholeOf(card).judged);
  const allJudged = meant.length > 0 && judged.length === meant.length;
  palette.querySelector("[data-do=judge]").setAttribute("aria-pressed", String(allJudged));
  palette.querySelector("[data-do=undo]").disabled = !undoable().length;
}

// --- what can be undone, kept while the tab is open ---

const undoable = () => JSON.parse(sessionStorage.getItem("undo") ?? "[]");
const remember = (steps) => sessionStorage.setItem("undo", JSON.stringify(steps.slice(-100)));

// --- talking to the server ---

// A picture's own page reloads after an edit, and shows the message of before again.
let leaving = false;

function say(text, bad = false) {
  if (leaving) sessionStorage.setItem("message", JSON.stringify([text, bad]));
  toast.textContent = text;
  toast.classList.toggle("bad", bad);
  clearTimeout(say.timer);
  if (!bad) say.timer = setTimeout(() => { toast.textContent = ""; }, 4000);
}

// One request after the other, so that an edit starts from what the one before left.
let last = Promise.resolve();

function send(path, body) {
  last = last.then(() => request(path, body));
  return last;
}

// Returns what the server answers, false if it refuses the edit, null if the same may succeed later.
async function request(path, body) {
  let response;
  try {
    response = await fetch(root + path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(typeof body === "function" ? body() : body),
    });
  } catch {
    say("The server does not respond: nothing was saved.", true);
    return null;
  }
  const answer = await response.json().catch(() => ({}));
  show(answer.cards ?? {});
  if (response.ok) return answer;
  const detail = typeof answer.detail === "string" ? answer.detail : `error ${response.status}`;
  say(`Not saved: ${detail}`, true);
  return [400, 404, 409, 422].includes(response.status) ? false : null;
}

function show(htmlById) {
  if (single) {
    if (!Object.keys(htmlById).length) return;
    leaving = true;
    location.reload();
    return;
  }
  for (const [id, html] of Object.entries(htmlById)) {
    const old = document.querySelector(`[data-image="${id}"]`);
    if (!old) continue;
    const holder = document.createElement("template");
    holder.innerHTML = html.trim();
    const card = holder.content.firstElementChild;
    for (const name of ["aria-selected", "aria-describedby"]) {
      if (old.hasAttribute(name)) card.setAttribute(name, old.getAttribute(name));
    }
    const had = old === current || old.contains(document.activeElement);
    const focused = old.contains(document.activeElement);
    old.replaceWith(card);
    if (had) goTo(card, focused);
  }
  describe();
}

// --- edits ---

// What is sent is worked out when its turn comes: from the cards as they are then.
async function edit(pictures, change, words) {
  if (!mayWrite || !pictures.length) return;
  const ids = pictures.map((card) => card.dataset.image);
  const body = () => ({
    origin,
    edits: ids.flatMap((id) => {
      const card = document.querySelector(`[data-image="${id}"]`);
      return change(groupsOf(card), wholeOf(card)).map((wanted) => ({ image_id: id, ...wanted }));
    }),
  });
  if (!body().edits.length) return say("Nothing to change.");
  const answer = await send("edits", body);
  if (!answer) return;
  remember([...undoable(), answer.ids]);
  say(`${words}${ids.length > 1 ? ` (${ids.length} pictures)` : ""} · u takes it back`);
  describe();
}

const wanted = (name, group, tags, kind = "correct") =>
  ({ group: name, tags, seen: group.seen, digest: group.digest, kind });

function toggle(button) {
  const name = button.closest("[data-group]").dataset.group;
  const tag = button.dataset.tag;
  const takeAway = button.getAttribute("aria-pressed") === "true";
  if (chosen().some((card) => wholeOf(card).judged)) {
    return say("Not a shoe: n takes that back, and then it can have tags.", true);
  }
  const change = (groups) => {
    const group = groups[name];
    if (group.tags.includes(tag) !== takeAway) return [];
    const tags = takeAway ? group.tags.filter((other) => other !== tag) : [...group.tags, tag];
    return [wanted(name, group, tags)];
  };
  edit(chosen(), change, `${takeAway ? "without" : "with"} ${tag}`);
}

function confirm(pictures) {
  const change = (groups) =>
    Object.entries(groups)
      .filter(([, group]) => group.state === "tagged" || group.state === "stale")
      .map(([name, group]) => wanted(name, group, group.tags, "confirm"));
  edit(pictures, change, "confirmed");
}

function withdraw(pictures) {
  const change = (groups, whole) => [
    ...verdict(whole, false),
    ...Object.entries(groups)
      .filter(([, group]) => group.seen !== null)
      .map(([name, group]) => wanted(name, group, null)),
  ];
  edit(pictures, change, "left to the models");
}

// On a whole picture, and so of no group.
const verdict = (whole, judged) =>
  whole.judged === judged ? [] : [{ group: "", tags: judged ? [] : null, seen: whole.seen, kind: "verdict" }];

function judge(pictures) {
  const judged = !pictures.every((card) => wholeOf(card).judged);
  edit(pictures, (_, whole) => verdict(whole, judged), judged ? "not a shoe" : "a shoe after all");
}

function undo() {
  if (mayWrite) last = last.then(undoLast);
  return last;
}

// Steps are ids of edits, or the pictures that were passed on. One stays until it is answered for.
async function undoLast() {
  const step = undoable().at(-1);
  if (!step) return;
  const done = step.skipped
    ? await request("queue/skip", { image_ids: step.skipped, back: true })
    : await request("undo", { ids: step });
  if (done === null) return;
  remember(undoable().slice(0, -1));
  if (done) say("undone");
  if (done && step.skipped) mark(step.skipped, false);
  describe();
}

// Elsewhere than in the queue nothing was asked: there it only goes to the next picture.
async function skip(pictures) {
  const next = neighbour("ArrowRight");
  if (origin === "queue" && mayWrite && pictures.length) {
    const ids = pictures.map((card) => card.dataset.image);
    if (!await send("queue/skip", { image_ids: ids })) return;
    remember([...undoable(), { skipped: ids }]);
    mark(ids, true);
    say(`skipped${ids.length > 1 ? ` (${ids.length} pictures)` : ""} · u takes it back`);
  }
  if (grid) goTo(next);
  describe();
}

function mark(ids, skipped) {
  for (const card of cards()) {
    if (ids.includes(card.dataset.image)) card.classList.toggle("skipped", skipped);
  }
}

// --- keyboard and mouse ---

const commands = {
  Enter: () => { const meant = chosen(); const next = neighbour("ArrowRight"); confirm(meant); if (grid) goTo(next); },
  " ": () => select(current),
  u: undo,
  x: () => withdraw(chosen()),
  n: () => judge(chosen()),
  s: () => skip(chosen()),
  z: () => { if (grid && current) location.href = current.querySelector(".look").href; },
  "/": () => document.getElementById("search")?.focus(),
  "?": () => { const help = document.getElementById("help"); if (help) help.open = !help.open; },
};

function select(card) {
  if (!grid || !card) return;
  card.setAttribute("aria-selected", card.getAttribute("aria-selected") !== "true");
  describe();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, textarea, select");
  const onControl = event.target.matches("a, button, summary") || typing;
  if (typing || (onControl && ["Enter", " "].includes(event.key))) return;
  const arrow = /^(Arrow|Home|End)/.test(event.key);
  if (arrow && grid) {
    if (!grid.contains(event.target) && current) goTo(current);
    else goTo(neighbour(event.key));
  } else if (commands[event.key]) {
    commands[event.key]();
  } else {
    const button = [...(palette?.querySelectorAll("[data-key]") ?? [])]
      .find((other) => other.dataset.key === event.key);
    if (!button) return;
    toggle(button);
  }
  event.preventDefault();
}

function onClick(event) {
  const button = event.target.closest("button");
  if (button?.dataset.tag) return toggle(button);
  if (button?.dataset.do) return { confirm: () => confirm(chosen()), withdraw: () => withdraw(chosen()), judge: () => judge(chosen()), skip: () => skip(chosen()), undo }[button.dataset.do]();
  if (button?.dataset.retry) return retry(button);
  const card = event.target.closest("[role=gridcell]");
  if (card && !event.target.closest("a")) {
    goTo(card);
    select(card);
  }
}

async function retry(button) {
  button.disabled = true;
  const answer = await send("rejected/retry", { locators: [button.dataset.retry] });
  button.textContent = answer ? "next night" : "Try again";
  button.disabled = Boolean(answer);
}

followTheme();
document.addEventListener("keydown", onKey);
document.addEventListener("click", onClick);
document.querySelector("form.filter")?.addEventListener("change", (event) => {
  if (event.target.type === "checkbox" || event.target.type === "date") event.currentTarget.requestSubmit();
});
grid?.addEventListener("focusin", (event) => {
  const card = event.target.closest("[role=gridcell]");
  if (card && card !== current) goTo(card, event.target === card);
});
goTo(cards()[0], false);
const message = JSON.parse(sessionStorage.getItem("message") ?? "null");
sessionStorage.removeItem("message");
if (message) say(...message);
