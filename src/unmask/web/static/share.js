// The share link: make it, copy it, take it back.

import { request } from "./api.js";

export function sharing(section) {
  const part = (name) => section.querySelector(name);
  const [link, state] = [part("#share-link"), part("#share-state")];
  const show = (url) => {
    link.value = url;
    part(".share-on").hidden = !url;
    part(".share-off").hidden = Boolean(url);
  };
  const act = (button, what) =>
    part(button).addEventListener("click", async () => {
      try {
        await what();
      } catch (error) {
        state.textContent = error.message;
      }
    });
  act("#share-make", async () => {
    show((await request(section.dataset.api, "POST")).url);
    state.textContent = "The link is there.";
    link.focus();
    link.select();
  });
  act("#share-copy", async () => {
    link.select();
    try {
      await navigator.clipboard.writeText(link.value);
      state.textContent = "Copied.";
    } catch {
      state.textContent = "It is selected: copy it with Ctrl+C."; // not allowed without https
    }
  });
  act("#share-revoke", async () => {
    await request(section.dataset.api, "DELETE");
    show("");
    state.textContent = "Taken back: the link no longer works.";
    part("#share-make").focus();
  });
}
