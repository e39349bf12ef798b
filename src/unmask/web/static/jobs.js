// Keeps the list of jobs up to date, on the first page and in the history, and searches in it.
// The server makes the list, here as without scripts; only what has changed is touched.

import { request, sleep } from "./api.js";
import "./delete.js";
import { isBusy, setBusy } from "./dom.js";
import { localTimes } from "./times.js";

const PAUSE = 2; // seconds, while something is still being judged
const spoken = document.getElementById("spoken");
const form = document.getElementById("search");
let latest = 0;

async function refresh(address = location.href) {
  const mine = ++latest;
  let page;
  try {
    const answer = await fetch(address);
    if (!answer.ok || answer.redirected) return;
    page = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    return; // the next time
  }
  if (mine !== latest) return; // a later search was faster
  localTimes(page);
  replace(page.getElementById("jobs"));
  document.getElementById("counts").replaceChildren(...page.getElementById("counts").childNodes);
  const paging = page.getElementById("paging");
  if (paging) document.getElementById("paging").replaceWith(paging);
}

/**
 * Makes an element like another one and returns what now stands there: where it can, the same node,
 * also under a finger. A button that does something else is another one.
 */
function become(old, now) {
  if (old.isEqualNode(now)) return old;
  const asked = (node) => Object.keys(node.dataset ?? {}).join();
  const isAlike =
    old.nodeName === now.nodeName &&
    old.childNodes.length === now.childNodes.length &&
    asked(old) === asked(now);
  if (!isAlike) {
    const isFocused = old === document.activeElement;
    old.replaceWith(now);
    if (isFocused) now.focus();
    return now;
  }
  if (old.nodeType === Node.TEXT_NODE) old.data = now.data;
  for (const { name } of [...(old.attributes ?? [])]) {
    if (!now.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of now.attributes ?? []) old.setAttribute(name, value);
  const replacing = [...now.childNodes];
  [...old.childNodes].forEach((child, place) => become(child, replacing[place]));
  return old;
}

const isUnfinished = (item) => ["queued", "running"].includes(item.dataset.state);

/** The name and the words of a job that has ended, for those who do not see the list. */
function ending(item) {
  const name = item.querySelector(".name").textContent;
  if (item.dataset.state === "cancelled") return `${name} is cancelled.`;
  return `${name}: ${item.querySelector(".said").textContent}.`;
}

function replace(now) {
  const shown = document.getElementById("jobs");
  if (!now || now.innerHTML === shown.innerHTML) return;
  const ended = [...now.querySelectorAll("li")].filter((item) => {
    const old = document.getElementById(item.id);
    return old && isUnfinished(old) && !isUnfinished(item);
  });
  if (ended.length) spoken.textContent = ended.map(ending).join(" ");
  const [list, newList] = [shown.querySelector("ul"), now.querySelector("ul")];
  shown.dataset.count = now.dataset.count;
  if (!list || !newList) {
    shown.replaceChildren(...now.childNodes);
    return;
  }
  const kept = [...newList.children].map((item) => {
    const old = document.getElementById(item.id);
    return old ? become(old, item) : item;
  });
  for (const item of [...list.children]) if (!kept.includes(item)) item.remove();
  kept.forEach((item, place) => {
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
  });
}

const unfinished = () =>
  document.querySelector("#jobs [data-state=queued], #jobs [data-state=running]");

async function watch() {
  for (;;) {
    await sleep(PAUSE);
    if (unfinished() && !document.hidden) await refresh();
  }
}

document.addEventListener("jobs-changed", () => refresh());
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-cancel]");
  if (!button?.closest("#jobs") || isBusy(button)) return;
  setBusy(button, true);
  try {
    await request(button.dataset.cancel, "POST");
  } catch {
    // it has just finished: the list says so
  }
  await refresh();
  setBusy(button, false);
});

if (form) {
  let timer = null;
  const field = form.querySelector("input");
  const search = async () => {
    const address = new URL(form.action);
    if (field.value.trim()) address.searchParams.set("search", field.value.trim());
    history.replaceState(null, "", address);
    await refresh();
    const count = Number(document.getElementById("jobs").dataset.count);
    spoken.textContent = count === 1 ? "1 found" : `${count} found`;
  };
  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(search, 250);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    search();
  });
  if (field.value !== field.defaultValue) search(); // somebody typed before this script was there
}

watch();
