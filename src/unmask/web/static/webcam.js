// Records ten seconds from the webcam, without sound.

import { sleep } from "./api.js";
import { isBusy, say, setBusy } from "./dom.js";

const SECONDS = 10;
const KINDS = ["video/mp4;codecs=avc1", "video/webm;codecs=vp9", "video/webm"];

/** Wires the button and the dialog; `take` gets the file when the recording is complete. */
export function recording(take) {
  const [open, dialog, view, bar, state, start, close] = [
    "record", "webcam", "webcam-view", "webcam-time", "webcam-state", "webcam-start", "webcam-close",
  ].map((id) => document.getElementById(id));
  const problem = dialog.querySelector(".problem");
  // Browsers lend the camera to this computer's own pages and to those with https only.
  if (!navigator.mediaDevices || !window.MediaRecorder) {
    open.hidden = true;
    return;
  }
  let stream = null;
  let recorder = null;

  open.addEventListener("click", async () => {
    dialog.showModal();
    bar.value = 0;
    say(problem, "");
    start.disabled = true;
    setBusy(start, false);
    start.textContent = "Start";
    state.textContent = "";
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        video: { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: "user" },
      });
    } catch (error) {
      const refused = error.name === "NotAllowedError";
      say(problem, refused ? "The browser was not allowed to use the camera." : "No camera was found.");
      return;
    }
    if (!dialog.open) {
      release(); // closed while the browser asked
      return;
    }
    view.srcObject = stream;
    view.play();
    start.disabled = false;
    start.focus();
  });

  start.addEventListener("click", async () => {
    if (isBusy(start)) return;
    setBusy(start, true);
    start.textContent = "Records";
    state.textContent = `Records ${SECONDS} seconds`;
    const kind = KINDS.find((each) => MediaRecorder.isTypeSupported(each));
    const mine = new MediaRecorder(stream, { mimeType: kind, videoBitsPerSecond: 4e6 });
    const parts = [];
    recorder = mine;
    mine.addEventListener("dataavailable", (event) => parts.push(event.data));
    mine.addEventListener("stop", () => {
      if (recorder !== mine) return; // closed early: nothing is kept
      const [type, end] = kind.startsWith("video/mp4") ? ["video/mp4", "mp4"] : ["video/webm", "webm"];
      const now = new Date().toISOString().slice(0, 19).replace("T", " ").replaceAll(":", ".");
      dialog.close();
      take(new File(parts, `Webcam ${now}.${end}`, { type }));
    });
    mine.start();
    for (let tenths = 1; tenths <= 10 * SECONDS && recorder === mine; tenths++) {
      await sleep(0.1);
      bar.value = tenths / 10;
    }
    if (recorder === mine) mine.stop();
  });

  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", release);

  function release() {
    const last = recorder;
    recorder = null;
    if (last?.state === "recording") last.stop();
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = view.srcObject = null;
  }
}
