// Small helpers for building pages out of text, and for texts.

/** An element with these attributes (null: none) and children; texts are never read as HTML. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Shows a text in an element, or hides it where there is none. */
export function say(place, text) {
  place.textContent = text;
  place.hidden = !text;
}

/** Whether a button's work is under way; 'disabled' would send the focus away. */
export const isBusy = (button) => button.ariaDisabled === "true";
export const setBusy = (button, busy) => (button.ariaDisabled = busy ? "true" : null);

/** Seconds as m:ss.s, or h:mm:ss.s from an hour on. */
export function clock(second, digits = 1) {
  const scale = 10 ** digits;
  const all = Math.round(Math.max(0, second) * scale);
  const whole = Math.floor(all / scale);
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
  const text = (hours ? `${hours}:${two(minutes)}` : minutes) + `:${two(whole % 60)}`;
  return digits ? `${text}.${String(all % scale).padStart(digits, "0")}` : text;
}

/** The class of a person's colour in app.css. */
export const colourOf = (person) => `person-${((person - 1) % 7) + 1}`;
