// Files and addresses on their way to the server: chosen, dropped, pasted or recorded.

import { problem, request, sleep } from "./api.js";
import { element, isBusy, say, setBusy } from "./dom.js";
import { recording } from "./webcam.js";

const AT_ONCE = 2;
const WAIT = 10; // seconds before another try, where the server does not say
const intake = document.querySelector(".intake");
const list = document.getElementById("uploads");
const spoken = document.getElementById("spoken");
const jobs = `${intake.dataset.api}/jobs`;
const waiting = [];
let active = 0;
let alone = true; // there is but one file: its page follows

function take(files) {
  if (!files.length) return;
  alone = files.length === 1 && !active && !waiting.length && !list.children.length;
  for (const file of files) waiting.push(new Upload(file));
  next();
}

function next() {
  while (active < AT_ONCE && waiting.length) {
    active += 1;
    waiting.shift().run().finally(() => {
      active -= 1;
      next();
    });
  }
}

class Upload {
  constructor(file) {
    this.file = file;
    this.bar = element("progress", { max: 1, value: 0, "aria-label": `Upload of ${file.name}` });
    this.state = element("p", { class: "state" }, "Waits for the others");
    this.button = element("button", { type: "button", class: "small" });
    const name = element("p", { class: "name" }, element("bdi", {}, file.name));
    this.item = element("li", {}, name, this.bar, this.state, this.button);
    this.name("Cancel", () => this.cancel());
    list.append(this.item);
  }

  /** Sets what the button says and does. */
  name(word, act) {
    this.button.replaceChildren(word, element("span", { class: "unseen" }, ` ${this.file.name}`));
    this.button.onclick = act;
  }

  async run() {
    if (this.cancelled) return;
    if (this.file.size > Number(intake.dataset.limit)) {
      const mb = Math.ceil(this.file.size / 1e6);
      this.fail(`It is too large: ${mb} MB, and at most ${intake.dataset.limitWords} are taken.`);
      return;
    }
    try {
      await this.file.slice(0, 1).arrayBuffer();
    } catch {
      this.fail("It cannot be read: it is a folder, or was moved or deleted. Choose the files again.");
      return;
    }
    if (this.cancelled) return;
    if (!this.file.size) {
      this.fail("The file is empty.");
      return;
    }
    for (;;) {
      try {
        this.done(await this.send());
        return;
      } catch (error) {
        if (this.cancelled) return;
        if (error.status !== 429) {
          this.fail(error.message, error.status === 0 || error.status >= 500);
          return;
        }
        await this.wait(error);
        if (this.cancelled) return;
      }
    }
  }

  send() {
    return new Promise((resolve, reject) => {
      const call = new XMLHttpRequest(); // fetch does not tell how far an upload is
      this.call = call;
      call.open("POST", jobs);
      call.setRequestHeader("Accept", "application/json");
      call.upload.onprogress = (event) => {
        const share = event.lengthComputable ? event.loaded / event.total : 0;
        this.bar.value = share;
        this.state.textContent =
          share < 1 ? `Is being uploaded, ${Math.floor(100 * share)} %` : "Is being checked";
      };
      call.onload = () => {
        if (call.status === 202) resolve(JSON.parse(call.responseText));
        else reject(problem(call.status, call.responseText, call.getResponseHeader("Retry-After")));
      };
      call.onerror = () => reject(problem(0, "", null));
      call.onabort = call.onerror;
      const form = new FormData();
      form.append("file", this.file, this.file.name);
      call.send(form);
    });
  }

  async wait(error) {
    this.bar.value = 0;
    const seconds = error.retryAfter ?? WAIT;
    spoken.textContent = `${this.file.name}: ${error.message}`;
    for (let left = Math.max(1, seconds); left > 0 && !this.cancelled; left--) {
      this.state.textContent = `${error.message} Tries again in ${left} s.`;
      await sleep(1);
    }
  }

  done(job) {
    if (alone) {
      this.state.textContent = "Is uploaded";
      this.bar.remove();
      open(job);
      return;
    }
    spoken.textContent = `${this.file.name} is uploaded.`;
    this.leave(); // it goes on in the list below
    document.dispatchEvent(new Event("jobs-changed"));
  }

  fail(words, again = false) {
    this.bar.remove();
    this.state.className = "state problem";
    this.state.textContent = words;
    spoken.textContent = `${this.file.name}: ${words}`;
    if (!again) {
      this.name("Remove", () => this.leave());
      return;
    }
    this.name("Try again", () => {
      const fresh = new Upload(this.file);
      this.item.replaceWith(fresh.item);
      fresh.button.focus();
      waiting.push(fresh);
      next();
    });
  }

  cancel() {
    this.cancelled = true;
    this.call?.abort();
    this.leave();
    spoken.textContent = `${this.file.name}: the upload is cancelled.`;
  }

  leave() {
    const focused = this.item.contains(document.activeElement);
    this.item.remove();
    if (focused) document.getElementById("files").focus();
  }
}

/** Goes to a job's page; behind a proxy its address may name another scheme than ours. */
function open(job) {
  location.assign(new URL(job.url, location.href).pathname);
}

const field = document.getElementById("files");
field.addEventListener("change", () => {
  take([...field.files]);
  field.value = ""; // the same file may be chosen again
});

// The whole page takes what is dropped: next to the zone it would replace the page.
const drop = document.getElementById("drop");
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  drop.classList.remove("over");
  take([...event.dataTransfer.files]);
});

const address = document.getElementById("address");
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) {
    event.preventDefault();
    take(files);
    return;
  }
  const text = event.clipboardData.getData("text").trim();
  const elsewhere = !event.target.closest?.("input, textarea");
  if (address && elsewhere && /^https?:\/\/\S+$/.test(text)) {
    event.preventDefault();
    address.elements.address.value = text;
    address.requestSubmit();
  }
});
address?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const [button, words] = [address.querySelector("button"), address.querySelector(".problem")];
  if (isBusy(button)) return;
  setBusy(button, true);
  say(words, "");
  try {
    const job = await request(jobs, "POST", { address: address.elements.address.value.trim() });
    open(job);
  } catch (error) {
    const when = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
    say(words, error.message + when);
    setBusy(button, false);
  }
});

addEventListener("beforeunload", (event) => {
  if (list.querySelector("progress")) event.preventDefault();
});

recording((file) => take([file]));
