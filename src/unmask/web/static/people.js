// Where each person's face is at any moment, as drawing.py draws it.

const JOINED = 3; // seconds: between faces further apart nobody knows where the face was
const NEAR = 0.002; // seconds: time stamps are rounded

/** Every person of a report, each with `at(second)`: {box, probability}, or null when not seen. */
export function followed(report) {
  const frame = 1 / (report.video.fps || 25);
  return report.tracks.map((track) => ({
    id: track.id,
    frames: track.frames,
    stretches: stretches(track.frames),
    at: (second) => at(track.frames, second, frame),
  }));
}

/** All moments at which somebody was judged, in order. */
export function moments(report) {
  const seconds = report.tracks.flatMap((track) => track.frames.map((frame) => frame.second));
  return [...new Set(seconds)].sort((a, b) => a - b);
}

/** Whether the person was also seen in the very next frame that was looked at. */
function joined(frame, next) {
  return next.sample === frame.sample + 1 && next.second - frame.second <= JOINED;
}

/** A person's frames, divided where the person was not found. */
function stretches(frames) {
  const found = [];
  frames.forEach((frame, i) => {
    if (i && joined(frames[i - 1], frame)) found.at(-1).push(frame);
    else found.push([frame]);
  });
  return found;
}

function at(frames, second, duration) {
  const last = lastBefore(frames, second + NEAR);
  if (last < 0) return null;
  const [frame, next] = [frames[last], frames[last + 1]];
  const since = Math.max(0, second - frame.second);
  if (next && joined(frame, next)) {
    const share = Math.min(1, since / (next.second - frame.second || 1));
    const box = frame.box.map((side, i) => side + share * (next.box[i] - side));
    return { box, probability: frame.probability_fake };
  }
  return since < duration - NEAR ? { box: frame.box, probability: frame.probability_fake } : null;
}

function lastBefore(frames, second) {
  let [low, high] = [0, frames.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (frames[middle].second <= second) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
