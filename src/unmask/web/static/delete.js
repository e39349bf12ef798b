// Buttons with data-delete delete a job, once that is confirmed.

import { request } from "./api.js";
import { isBusy, say, setBusy } from "./dom.js";

const dialog = document.getElementById("delete");
let button = null;

if (dialog) {
  const [problem, confirm] = [dialog.querySelector(".problem"), dialog.querySelector(".danger")];
  document.addEventListener("click", (event) => {
    const clicked = event.target.closest("[data-delete]");
    if (!clicked) return;
    button = clicked;
    dialog.querySelector(".deleted-name").textContent = button.dataset.name;
    say(problem, "");
    dialog.showModal();
  });
  confirm.addEventListener("click", async () => {
    if (isBusy(confirm)) return;
    setBusy(confirm, true);
    try {
      await request(button.dataset.delete, "DELETE");
      done();
    } catch (error) {
      if (error.status === 404) done();
      else say(problem, error.message);
    } finally {
      setBusy(confirm, false);
    }
  });
}

function done() {
  dialog.close();
  if (button.dataset.then) location.assign(button.dataset.then);
  else {
    document.getElementById("spoken").textContent = `${button.dataset.name} is deleted.`;
    document.getElementById("main").focus(); // the button is about to go
    document.dispatchEvent(new Event("jobs-changed"));
  }
}
