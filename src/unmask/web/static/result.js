// The page of a finished job: player, timeline, downloads, share link, deletion.

import { request } from "./api.js";
import { annotatedCopy, annotatedDownload } from "./annotated.js";
import "./delete.js";
import { clock } from "./dom.js";
import { followed } from "./people.js";
import { beginning, Player } from "./player.js";
import { sharing } from "./share.js";
import { timeline } from "./timeline.js";

const watch = document.querySelector(".watch");
const keep = document.querySelector(".keep");
const download = document.getElementById("annotated");

async function start() {
  const note = document.getElementById("player-note");
  const media = document.getElementById("video") ?? document.getElementById("picture");
  const failed = unplayable(media);
  const begun = beginning(media); // before anybody seeks
  let result;
  try {
    result = await request(watch.dataset.result);
  } catch (error) {
    note.textContent = error.message;
    return;
  }
  const { report } = result;
  const shown = new Set(result.people.map((person) => person.id));
  const people = followed(report);
  const player = new Player(media, document.getElementById("boxes"), people, report.video);
  begun.then((second) => (player.begin = second));
  const boxes = document.getElementById("show-boxes");
  boxes.addEventListener("change", () => player.showBoxes(boxes.checked));
  const holder = document.getElementById("timeline");
  if (holder) {
    const uncertain = Number(watch.dataset.uncertain);
    const lines = people.filter((person) => shown.has(person.id));
    const show = timeline(holder, report, lines, uncertain, player);
    const moment = document.getElementById("moment");
    player.onMoment((second) => {
      show(second);
      moment.textContent = clock(second);
    });
  }
  thumbnails(player);
  fullscreen(watch.querySelector(".stage"));
  await failed;
  await convert(media, player, boxes, note);
}

/** Resolves when the browser cannot show the file; never, where it can. */
function unplayable(media) {
  return new Promise((resolve) => {
    media.addEventListener("error", resolve, { once: true });
    // It may have failed before this script ran; sound without pictures is no error to a browser.
    if (media.error || (media.tagName === "IMG" && media.complete && !media.naturalWidth)) resolve();
    media.addEventListener("loadeddata", () => media.videoWidth === 0 && resolve(), { once: true });
  });
}

/** Shows the annotated copy instead of a file that the browser cannot show. */
async function convert(media, player, boxes, note) {
  const what = media.tagName === "IMG" ? "show" : "play";
  if (!download) {
    note.textContent = `Your browser cannot ${what} this format. Download the file to see it.`;
    return;
  }
  note.textContent = `Your browser cannot ${what} this format: a converted copy is being made.`;
  try {
    await annotatedCopy(keep.dataset.job, download.dataset.ask, download.dataset.state);
  } catch (error) {
    note.textContent = `Your browser cannot ${what} this format. ${error.message}`;
    return;
  }
  download.dataset.state = "ready";
  player.showBoxes(false);
  boxes.checked = false;
  boxes.disabled = true;
  player.begin = 0;
  media.src = watch.dataset.annotated;
  note.textContent = `Your browser cannot ${what} this format: here is a converted copy with the boxes drawn in.`;
}

function thumbnails(player) {
  for (const button of document.querySelectorAll("[data-seek]")) {
    const go = () => {
      player.media.pause();
      player.seek(Number(button.dataset.seek));
      watch.scrollIntoView();
    };
    button.addEventListener("click", () => {
      go();
      document.getElementById("timeline").focus({ preventScroll: true });
    });
    // The pictures too, for whoever has a pointer.
    button.closest("figure").querySelector(".pair").addEventListener("click", go);
  }
}

function fullscreen(stage) {
  const button = document.getElementById("fullscreen");
  if (!document.fullscreenEnabled) button.hidden = true;
  button.addEventListener("click", () => stage.requestFullscreen());
}

if (watch) start();
if (download?.dataset.ask) {
  annotatedDownload(download, keep.dataset.job, document.getElementById("annotated-state"));
}
const share = document.getElementById("share");
if (share) sharing(share);
