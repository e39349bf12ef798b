// The video or picture with boxes over the faces. Boxes are drawn on an SVG that lies over it.

import { colourOf } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const [CHAR_HEIGHT, PAD] = [14, 5]; // pixels of a label
const LABEL_WIDTH = 120; // pixels, about
const MOST_COVERED = 3; // widths of the picture: with more labels they only have numbers

function shape(tag, className) {
  const made = document.createElementNS(SVG, tag);
  made.setAttribute("class", className);
  return made;
}

function set(made, attributes) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
}

/** Resolves to the moment of a video's first frame by its own clock, which may begin late. */
export function beginning(video) {
  return new Promise((resolve) => {
    if (video.readyState > 1) resolve(video.currentTime);
    else video.addEventListener("loadeddata", () => resolve(video.currentTime), { once: true });
  });
}

export class Player {
  /** `media` is a video or img, `svg` lies over it, `people` are those of people.js. */
  constructor(media, svg, people, size) {
    this.media = media;
    this.svg = svg;
    this.size = size; // of the picture that the boxes are for
    this.shown = true;
    this.second = 0;
    this.begin = 0; // where the video's own clock begins; a report's begins at 0
    this.listeners = [];
    this.people = people.map((person) => ({ ...person, ...this.#parts(person.id) }));
    new ResizeObserver(() => this.draw()).observe(media);
    media.addEventListener(media.tagName === "IMG" ? "load" : "loadeddata", () => this.draw());
    if (media.tagName === "VIDEO") this.#follow();
    this.draw();
  }

  /** Tells `listener` of the moment that is shown, in seconds. */
  onMoment(listener) {
    this.listeners.push(listener);
  }

  seek(second) {
    // A little later, or rounding shows the frame before.
    this.media.currentTime = this.begin + second + 0.001;
    this.#moment(second);
  }

  showBoxes(shown) {
    this.shown = shown;
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.media;
    const inner = this.#natural();
    this.svg.setAttribute("viewBox", `0 0 ${width || 1} ${height || 1}`);
    // What is left free around a picture of another shape than its place.
    const scale = Math.min(width / inner.width, height / inner.height);
    const [left, top] = [(width - scale * inner.width) / 2, (height - scale * inner.height) / 2];
    // Pixels need not be square: the box's are the coded ones.
    const across = (scale * inner.width) / this.size.width;
    const down = (scale * inner.height) / this.size.height;
    const picture = { left, right: width - left, top, bottom: height - top };
    const taken = [];
    const seen = this.people.map((person) =>
      this.shown && inner.width ? person.at(this.second) : null,
    );
    const isCrowded = seen.filter(Boolean).length * LABEL_WIDTH > MOST_COVERED * width;
    for (const [place, person] of this.people.entries()) {
      const found = seen[place];
      person.group.setAttribute("display", found ? "inline" : "none");
      if (!found) continue;
      const [x1, y1, x2, y2] = found.box;
      const box = {
        x: left + across * x1,
        y: top + down * y1,
        width: across * (x2 - x1),
        height: down * (y2 - y1),
      };
      set(person.ground, box);
      set(person.line, box);
      const words = `Person ${person.id}: ${found.probability.toFixed(2)}`;
      person.text.textContent = isCrowded ? String(person.id) : words;
      this.#label(person, box, picture, taken);
    }
  }

  /** Puts the label above its box, or below, or inside, where no other label is. */
  #label(person, box, picture, taken) {
    const width = person.text.getComputedTextLength() + 2 * PAD;
    const height = CHAR_HEIGHT + 2 * PAD;
    const x = Math.max(picture.left, Math.min(box.x, picture.right - width));
    const tops = [box.y - height - 2, box.y + box.height + 2, box.y + 2].filter(
      (y) => y >= picture.top && y + height <= picture.bottom,
    );
    const free = tops.find((y) =>
      taken.every((t) => x + width < t.x || t.x + t.width < x || y + height < t.y || t.y + height < y),
    );
    const y = free ?? tops[0] ?? picture.top;
    taken.push({ x, y, width });
    set(person.plate, { x, y, width, height });
    set(person.text, { x: x + PAD, y: y + PAD + CHAR_HEIGHT - 3 });
  }

  #parts(id) {
    const group = shape("g", `face ${colourOf(id)}`);
    const parts = { group, ground: shape("rect", "ground"), line: shape("rect", "line") };
    Object.assign(parts, { plate: shape("rect", "plate"), text: shape("text", "text") });
    group.append(parts.ground, parts.line, parts.plate, parts.text);
    this.svg.append(group);
    return parts;
  }

  #natural() {
    const { media } = this;
    if (media.tagName === "IMG") return { width: media.naturalWidth, height: media.naturalHeight };
    return { width: media.videoWidth, height: media.videoHeight };
  }

  #follow() {
    const { media } = this;
    if ("requestVideoFrameCallback" in media) {
      // The time of the very frame that is shown, where `currentTime` is only near it.
      const next = (_, frame) => {
        // While it seeks, this is a frame of where it was: the next arrow key would start there.
        if (!media.seeking) this.#moment(frame.mediaTime - this.begin);
        media.requestVideoFrameCallback(next);
      };
      media.requestVideoFrameCallback(next);
    } else {
      for (const event of ["timeupdate", "seeked"]) {
        media.addEventListener(event, () => this.#moment(media.currentTime - this.begin));
      }
    }
  }

  #moment(second) {
    this.second = second;
    this.draw();
    for (const listener of this.listeners) listener(second);
  }
}
