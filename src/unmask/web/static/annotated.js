// The annotated copy of a job: has it made if need be, and waits for it.

import { request, sleep } from "./api.js";

const PAUSE = 1.5; // seconds

/** Resolves when the copy is there. Throws Problem, or Error where it could not be made. */
export async function annotatedCopy(jobAddress, askAddress, state) {
  if (state === "ready") return;
  if (state === "none" || state === "failed") await request(askAddress, "POST");
  for (;;) {
    const job = await request(jobAddress);
    if (job.annotated === "ready") return;
    if (job.annotated === "failed") {
      throw new Error("The copy with boxes could not be made. The other downloads work.");
    }
    await sleep(PAUSE);
  }
}

/** Makes the download link ask for the copy first, where it is not made yet. */
export function annotatedDownload(link, jobAddress, place) {
  let busy = false;
  link.addEventListener("click", async (event) => {
    if (link.dataset.state === "ready") return;
    event.preventDefault();
    if (busy) return;
    busy = true;
    place.textContent = "The copy with boxes is being made. The download then starts by itself.";
    link.setAttribute("aria-busy", "true");
    try {
      await annotatedCopy(jobAddress, link.dataset.ask, link.dataset.state);
      link.dataset.state = "ready";
      place.textContent = "The copy with boxes is ready.";
      link.click();
    } catch (error) {
      link.dataset.state = "failed";
      place.textContent = error.message;
    } finally {
      busy = false;
      link.removeAttribute("aria-busy");
    }
  });
}
