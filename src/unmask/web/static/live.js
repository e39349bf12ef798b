// A job while it waits and is judged: place in the queue, progress, faces as they are judged.
// Events start from the first at every visit, so a reload shows the same; a lost connection goes on
// where it was, because the browser then tells the server the last event it got.

import { request, sleep } from "./api.js";
import { clock, colourOf, element, isBusy, say, setBusy } from "./dom.js";

const MOST = 12; // pictures of a person, the latest
const page = document.getElementById("live");
const [place, progress, spoken, problem, faces] = ["place", "progress", "spoken", "problem", "faces"]
  .map((id) => document.getElementById(id));
const WORDS = { queued: "Waits", running: "Is being judged" };
const people = new Map();
let state = null;
let told = 0; // quarters of the work that were spoken of

function onState(event) {
  state = JSON.parse(event.data).state;
  if (!(state in WORDS)) {
    source.close();
    location.reload(); // the page is now the result
    return;
  }
  const words = document.getElementById("state");
  document.title = document.title.replace(words.textContent, WORDS[state]);
  words.textContent = WORDS[state];
  for (const icon of page.querySelectorAll(".state-icon")) icon.hidden = icon.dataset.state !== state;
  if (state === "running") {
    say(place, "");
    clear(); // when a worker died, another starts again
  }
}

function onFaces(event) {
  const news = JSON.parse(event.data);
  show(news.progress);
  for (const face of news.faces) {
    if (!people.has(face.person)) people.set(face.person, group(face.person));
    add(people.get(face.person), face);
  }
  document.getElementById("no-faces").hidden = people.size > 0;
}

function show(share) {
  progress.value = share;
  const quarter = Math.floor(4 * share);
  if (quarter > told && quarter < 4) {
    told = quarter;
    const seen = people.size === 1 ? "1 person" : `${people.size} people`;
    spoken.textContent = `${25 * quarter} % judged, ${seen} so far`;
  }
}

function group(person) {
  const found = { count: 0, logits: 0 };
  found.figures = element("p", { class: "note" });
  found.strip = element("ol", { class: "strip" });
  const chip = element("span", { class: `chip ${colourOf(person)}`, "aria-hidden": "true" }, person);
  faces.append(
    element(
      "article",
      { "aria-label": `Person ${person}` },
      element("h3", {}, chip, `Person ${person}`),
      found.figures,
      found.strip,
    ),
  );
  return found;
}

function add(person, face) {
  const p = Math.min(Math.max(face.probability_fake, 1e-6), 1 - 1e-6);
  person.count += 1;
  person.logits += Math.log(p / (1 - p));
  const mean = 1 / (1 + Math.exp(-person.logits / person.count));
  const frames = person.count === 1 ? "1 frame" : `${person.count} frames`;
  person.figures.textContent = `${frames}, ${mean.toFixed(2)} so far`;
  if (!face.crop) return;
  const picture = element("img", { src: face.crop, alt: "", width: 96, height: 96 });
  const figure = element("strong", {}, face.probability_fake.toFixed(2));
  person.strip.prepend(element("li", {}, picture, figure, `at ${clock(face.second)}`));
  if (person.strip.children.length > MOST) person.strip.lastElementChild.remove();
}

function clear() {
  people.clear();
  faces.replaceChildren();
  document.getElementById("no-faces").hidden = false;
  progress.value = 0;
  told = 0;
}

/** Asks for what no event tells: the place in the queue, and whether the job is still there. */
async function look() {
  try {
    const job = await request(page.dataset.job);
    say(problem, "");
    if (!(job.state in WORDS)) location.reload();
    if (job.state === "queued") {
      say(place, job.waiting_before ? `${job.waiting_before} before it.` : "It is next.");
    }
  } catch (error) {
    if (error.status === 404) location.reload();
    else say(problem, error.message);
  }
}

let source = null;

/** Only while somebody looks: over HTTP/1.1 a browser has but six connections to one server. */
function listen() {
  source?.close();
  if (document.hidden) return;
  source = new EventSource(page.dataset.events);
  source.addEventListener("state", onState);
  source.addEventListener("faces", onFaces);
  source.addEventListener("open", () => say(problem, ""));
  source.addEventListener("error", async () => {
    if (source.readyState !== EventSource.CLOSED) {
      say(problem, "The connection is lost; the browser tries again. What is judged goes on.");
      return;
    }
    await look();
    await sleep(3);
    again();
  });
}

function again() {
  clear();
  listen();
}

async function watch() {
  for (;;) {
    await sleep(3);
    if (state === "queued" || document.hidden) await look();
  }
}

document.getElementById("cancel")?.addEventListener("click", async ({ currentTarget: button }) => {
  if (isBusy(button)) return;
  setBusy(button, true);
  button.textContent = "Is being cancelled";
  try {
    await request(page.dataset.cancel, "POST");
  } catch (error) {
    if (error.status === 409) return; // it has just finished: the page is about to say so
    say(problem, error.message);
    setBusy(button, false);
    button.textContent = "Cancel";
  }
});

document.addEventListener("visibilitychange", again);
listen();
watch();
