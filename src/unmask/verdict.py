"""From the logits of faces to verdicts: per person, then for the whole video.

Verdicts are 'fake', 'real' or 'uncertain' (too near the threshold to say); a video may also be
'no_face' or 'unreadable', which have no probability at all. Every verdict comes with its reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from types import SimpleNamespace

import numpy as np

from unmask.quality import is_colourless
from unmask.text import count, span
from unmask.tracks import Track

VERDICTS = ("fake", "real", "uncertain", "no_face", "unreadable")


NO_COLOUR = (
    "But the face has no colour, and without it the model takes about half of all real people for "
    "fakes: look for the recording in colour."
)


@dataclass(frozen=True)
class Rule:
    """How probabilities become verdicts; the settings of the same names."""

    threshold: float = 0.5
    uncertain: float = 0.1
    aggregate: str = "person"
    min_track_frames: int = 3

    @classmethod
    def of(cls, settings: SimpleNamespace) -> "Rule":
        """The rule that these settings of 'unmask detect' make."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    def verdict(self, probability: float) -> str:
        """'fake', 'real' or, closer to the threshold than ``uncertain``, 'uncertain'."""
        if abs(probability - self.threshold) < self.uncertain:
            return "uncertain"
        return "fake" if probability >= self.threshold else "real"


@dataclass(frozen=True)
class Verdict:
    """What is said of a video. ``probability`` is that of fake, None where there is no telling."""

    name: str
    reason: str
    probability: float | None = None

    @property
    def confidence(self) -> float | None:
        """How sure the verdict is: max(p, 1 - p)."""
        return None if self.probability is None else max(self.probability, 1 - self.probability)


def sigmoid(logit: float) -> float:
    """Logit -> probability in [0, 1]; no logit is too large for it."""
    return float(0.5 * (1 + np.tanh(logit / 2)))


def most_possible(count: int) -> float:
    """How large a rate may still be of which none was seen in ``count`` cases: the 95 % bound.

    It takes the cases as independent; for many it is the 'rule of three', 3 / ``count``.
    """
    return 1 - 0.05 ** (1 / count)


def logit(probabilities: Sequence[float] | np.ndarray, sure: float = 1e-12) -> np.ndarray:
    """Probabilities (n,) -> logits (n,). One of 0 or 1 has none: ``sure`` from them is as good."""
    p = np.clip(probabilities, sure, 1 - sure)
    return np.log(p) - np.log1p(-p)


def track_probability(track: Track) -> float:
    """The probability that a person is fake: the sigmoid of the mean logit of its faces."""
    return sigmoid(np.mean([s.logit for s in track.sightings]))


def track_verdict(track: Track, rule: Rule) -> str:
    """The verdict on a person: 'uncertain' instead of 'fake' where the face has no colour."""
    name = rule.verdict(track_probability(track))
    return "uncertain" if name == "fake" and _lack_colour([track]) else name


def judge(tracks: Sequence[Track], rule: Rule, is_image: bool = False) -> Verdict:
    """The verdict on a video or image in which these people, at least one, were seen.

    With the rule 'person' the video is as fake as its most fake person among those seen in at
    least ``min_track_frames`` frames; where nobody was, as in an image, all count. With 'mean' it
    is the sigmoid of the mean logit over all faces. Without colour nobody is called fake: the model
    calls half of all real people so. Such a person comes after whoever is called so.
    """
    judged = tracks
    if rule.aggregate == "mean":
        probability = sigmoid(np.mean([s.logit for t in tracks for s in t.sightings]))
        faces = sum(len(t.sightings) for t in tracks)
        subject = f"The mean over {count(faces, 'face')} of {_people(len(tracks))}"
    else:
        long = [t for t in tracks if len(t.sightings) >= rule.min_track_frames]
        worst = max(
            long or tracks,
            key=lambda track: (track_verdict(track, rule) == "fake", track_probability(track)),
        )
        judged = [worst]
        probability = track_probability(worst)
        parts = [f"Person {worst.id}"]
        if len(tracks) > 1:
            parts = [f"The most suspicious of {_people(len(tracks))}", f"person {worst.id}"]
        if not is_image:
            seen = worst.first_second, worst.last_second, len(worst.sightings)
            parts.append(f"seen {span(*seen)}")
        subject = ", ".join(parts) + ("," if len(parts) > 1 else "")
    name = rule.verdict(probability)
    figures = f"(probability of fake {probability:.2f})"
    if name == "uncertain":
        better = "larger" if is_image else "longer, larger"
        reason = (
            f"{subject} is too close to call {figures}: try a {better} or less compressed copy, "
            "or have somebody look at it."
        )
    elif name == "fake":
        reason = f"{subject} looks manipulated {figures}."
    else:
        reason = f"{subject} shows no sign of manipulation {figures}."
    if name != "real" and _lack_colour(judged):
        name, reason = "uncertain", f"{reason} {NO_COLOUR}"
    return Verdict(name, reason, probability)


def _lack_colour(tracks: Sequence[Track]) -> bool:
    seen = [s for track in tracks for s in track.sightings if s.quality]
    return is_colourless([s.quality.colour for s in seen])


def no_face(frames: int, min_face: int, detection_score: float, is_image: bool = False) -> Verdict:
    """The verdict where no face was found in any of the ``frames`` looked at."""
    place = "the picture" if is_image else count(frames, "frame")
    more = "" if is_image else "at more frames (--every), or "
    return Verdict(
        "no_face",
        f"No face of at least {min_face} pixels was found in {place}, so there is nothing to "
        f"judge. If there is one, look {more}for smaller (--min-face) or less clear ones "
        f"(--detection-score, now {detection_score:g}).",
    )


def _people(number: int) -> str:
    return "1 person" if number == 1 else f"{number} people"
