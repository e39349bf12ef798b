// One line a person: the probability of fake over time. It is also a slider that seeks.

import { clock, colourOf } from "./dom.js";
import { moments } from "./people.js";
import uPlot from "./vendor/uPlot.esm.js";

const HEIGHT = 190;
const DASHES = [[], [8, 4], [2, 3], [12, 3, 2, 3]]; // colour is not the only difference
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];

/** Draws into `holder`, a slider; returns a function that shows the moment of a player. */
export function timeline(holder, report, people, uncertain, player) {
  const last = Math.max(...report.tracks.map((track) => track.last_second));
  const stated = report.video.duration_seconds;
  // A duration that is stated wrongly must not squeeze all that was seen into a corner.
  const span = stated && stated >= last && stated <= Math.max(2 * last, last + 60) ? stated : last;
  const style = getComputedStyle(holder);
  const colour = (name) => style.getPropertyValue(name).trim();
  const lines = people.map((person) => ({
    label: `Person ${person.id}`,
    stroke: personColour(holder, person.id),
    width: 2,
    dash: DASHES[(person.id - 1) % DASHES.length],
    points: { show: person.frames.length <= 400, size: 5, dash: [] },
  }));
  const axis = { stroke: colour("--desk-faint"), grid: { show: false }, font: "12px system-ui" };
  const ticks = { stroke: colour("--desk-rule"), size: 5, width: 1 };
  const chart = new uPlot(
    {
      width: Math.max(200, holder.clientWidth),
      height: HEIGHT,
      padding: [10, 22, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: { x: { time: false, range: [0, span] }, y: { range: [0, 1] } },
      axes: [
        {
          ...axis,
          ticks,
          incrs: STEPS,
          space: 64,
          values: (_, values, __, ___, step) => values.map((v) => clock(v, step < 1 ? 1 : 0)),
        },
        {
          ...axis,
          ticks,
          size: 58,
          splits: [0, report.threshold, 1],
          values: () => ["real 0", String(report.threshold), "fake 1"],
        },
      ],
      series: [{}, ...lines],
      hooks: {
        drawClear: [(u) => ground(u, report.threshold, uncertain, colour)],
        draw: [(u) => numbers(u, people, lines, colour("--desk"))],
      },
    },
    table(people),
    holder,
  );
  const head = document.createElement("div");
  head.className = "playhead";
  chart.over.append(head);
  const state = { second: 0 };
  const show = (second) => {
    state.second = second;
    const left = chart.valToPos(Math.min(second, span), "x");
    head.style.transform = `translateX(${left}px)`;
  };
  new ResizeObserver(() => {
    chart.setSize({ width: Math.max(200, holder.clientWidth), height: HEIGHT });
    show(state.second);
  }).observe(holder);
  slider(holder, chart, report, people, span, player, state);
  show(0);
  return show;
}

/** Rows for uPlot: all moments, then each person's values; null is a gap, undefined no value. */
function table(people) {
  const seconds = new Set();
  const values = people.map((person) => {
    const at = new Map();
    person.stretches.forEach((stretch, i) => {
      const end = person.stretches[i - 1]?.at(-1).second;
      if (i) at.set((end + stretch[0].second) / 2, null);
      for (const frame of stretch) at.set(frame.second, frame.probability_fake);
    });
    for (const second of at.keys()) seconds.add(second);
    return at;
  });
  const x = [...seconds].sort((a, b) => a - b);
  return [x, ...values.map((at) => x.map((second) => at.get(second)))];
}

function ground(u, threshold, uncertain, colour) {
  const { ctx, bbox } = u;
  const y = (value) => u.valToPos(Math.min(1, Math.max(0, value)), "y", true);
  const [top, bottom] = [y(threshold + uncertain), y(threshold - uncertain)];
  ctx.save();
  ctx.fillStyle = colour("--desk-band");
  ctx.fillRect(bbox.left, top, bbox.width, bottom - top);
  ctx.strokeStyle = colour("--desk-faint");
  ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y(threshold));
  ctx.lineTo(bbox.left + bbox.width, y(threshold));
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.strokeStyle = colour("--desk-rule");
  ctx.strokeRect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.restore();
}

/** Each person's number at the end of the line. */
function numbers(u, people, lines, around) {
  const { ctx } = u;
  ctx.save();
  ctx.font = `bold ${13 * devicePixelRatio}px system-ui`;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.strokeStyle = around;
  ctx.lineWidth = 4 * devicePixelRatio;
  people.forEach((person, i) => {
    const end = person.frames.at(-1);
    ctx.fillStyle = lines[i].stroke;
    const x = u.valToPos(end.second, "x", true) + 8 * devicePixelRatio;
    const y = u.valToPos(end.probability_fake, "y", true);
    ctx.strokeText(person.id, x, y);
    ctx.fillText(person.id, x, y);
  });
  ctx.restore();
}

function personColour(holder, id) {
  const probe = document.createElement("span");
  probe.className = colourOf(id);
  holder.append(probe);
  const found = getComputedStyle(probe).getPropertyValue("--person").trim();
  probe.remove();
  return found;
}

function slider(holder, chart, report, people, span, player, state) {
  const judged = moments(report);
  const tell = () => {
    const second = Math.min(state.second, span);
    const figures = people
      .map((person) => [person.id, person.at(second)])
      .filter(([, found]) => found)
      .map(([id, found]) => `person ${id} ${found.probability.toFixed(2)}`);
    holder.setAttribute("aria-valuenow", second.toFixed(2));
    holder.setAttribute(
      "aria-valuetext",
      `${clock(second)} of ${clock(span)}: ${figures.join(", ") || "nobody"}`,
    );
  };
  const seek = (second) => {
    state.second = Math.min(Math.max(second, 0), span);
    player.seek(state.second);
    tell();
  };
  const keys = {
    ArrowRight: () => judged.find((s) => s > state.second + 0.01) ?? span,
    ArrowLeft: () => judged.findLast((s) => s < state.second - 0.01) ?? 0,
    PageUp: () => state.second + span / 10,
    PageDown: () => state.second - span / 10,
    Home: () => 0,
    End: () => span,
  };
  keys.ArrowUp = keys.ArrowRight;
  keys.ArrowDown = keys.ArrowLeft;
  holder.setAttribute("aria-valuemax", span.toFixed(2));
  holder.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    player.media.pause();
    seek(keys[event.key]());
  });
  const point = (event) => {
    const left = event.clientX - chart.over.getBoundingClientRect().left;
    seek(chart.posToVal(left, "x"));
  };
  chart.over.addEventListener("pointerdown", (event) => {
    chart.over.setPointerCapture(event.pointerId);
    point(event);
  });
  chart.over.addEventListener("pointermove", (event) => {
    if (chart.over.hasPointerCapture(event.pointerId)) point(event);
  });
  // Not while it plays: a screen reader on the slider would read on and on.
  for (const event of ["pause", "seeked"]) player.media.addEventListener(event, tell);
  tell();
}
