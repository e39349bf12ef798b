"""The report on one input.

Its JSON form is described field by field in docs/report.md and by report.schema.json.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from unmask.text import in_unicode

if TYPE_CHECKING:
    from unmask.provenance import Provenance

SCHEMA = Path(__file__).with_name("report.schema.json")
SCHEMA_VERSION = 1
HEADLINES = {
    "fake": "Looks manipulated",
    "real": "No sign of manipulation found",
    "uncertain": "Too close to call",
    "no_face": "No face to judge",
    "unreadable": "The file could not be read",
}
"""Each verdict in words, for people."""


@dataclass(frozen=True)
class FrameReport:
    """A person's face in one frame: ``box`` is (x1, y1, x2, y2) in pixels of the first frame shown.

    ``face_size`` (in pixels of this frame, whose size may have changed), ``sharpness``, ``turn``
    and ``colour`` are those of quality.Quality; the last is None in reports of before it was
    measured.
    ``sample`` counts the frames in which faces were looked for, from 0: who is in two in a row was
    there in between.
    """

    index: int
    second: float
    box: tuple[float, float, float, float]
    detection_score: float
    probability_fake: float
    face_size: float
    sharpness: float
    turn: float
    sample: int
    colour: float | None = None


@dataclass(frozen=True)
class TrackReport:
    """One person: verdict, when it was seen (seconds), and every frame that was judged."""

    id: int
    verdict: str
    probability_fake: float
    first_second: float
    last_second: float
    frames: list[FrameReport]


@dataclass(frozen=True)
class ModelReport:
    """The model that judged; ``sha256`` is that of its .xml file followed by its .bin file.

    ``calibration`` is the sha256 of the user's calibration file, None where there was none.
    """

    name: str
    version: str
    sha256: str
    calibration: str | None = None


@dataclass(frozen=True)
class VideoReport:
    """The input's facts; ``duration_seconds`` and ``fps`` are what it says of itself, if it does.

    ``width`` and ``height`` are in pixels, as shown. The frames are counted, not read off;
    ``sampling`` is how they were chosen, 'exact', 'fast' or 'keyframes'.
    ``bits_per_pixel`` is that of quality.bits_per_pixel, None where it cannot be told.
    """

    width: int
    height: int
    duration_seconds: float | None
    fps: float | None
    codec: str
    bits_per_pixel: float | None
    frames_decoded: int
    frames_sampled: int
    sampling: str

    @property
    def is_image(self) -> bool:
        """Whether it is one picture, with no time in it."""
        return self.duration_seconds is None and self.fps is None and self.frames_decoded == 1


@dataclass(frozen=True)
class Timings:
    """Seconds that decoding, finding faces and judging them kept busy; they overlap in total."""

    decode: float
    faces: float
    classify: float
    total: float


@dataclass(frozen=True)
class Report:
    """What Unmask says of one input. Probabilities are always those of fake, from 0 to 1.

    ``probability_fake`` and ``confidence`` are None for the verdicts 'no_face' and 'unreadable',
    ``video`` is None for 'unreadable', ``sha256`` is None where the file could not be read at all.
    ``damage`` says what is wrong with a file that was judged by what could be decoded.
    ``provenance`` is what the file says of where it comes from, None unless that was asked for.
    """

    path: str
    sha256: str | None
    verdict: str
    reason: str
    probability_fake: float | None
    confidence: float | None
    threshold: float
    model: ModelReport
    video: VideoReport | None
    tracks: list[TrackReport]
    timings_seconds: Timings
    damage: str | None = None
    provenance: "Provenance | None" = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The report that ``to_dict`` gave as ``values``, without its provenance and damage.

        Raises KeyError and TypeError for values that are none.
        """
        tracks = [
            TrackReport(**track | {"frames": [FrameReport(**frame) for frame in track["frames"]]})
            for track in values["tracks"]
        ]
        own = {
            "model": ModelReport(**values["model"]),
            "video": values["video"] and VideoReport(**values["video"]),
            "tracks": tracks,
            "timings_seconds": Timings(**values["timings_seconds"]),
            "provenance": None,
        }
        return cls(**{n: v for n, v in values.items() if n != "schema_version"} | own)

    @property
    def is_image(self) -> bool:
        """Whether it is on one picture, with no time in it."""
        return self.video is not None and self.video.is_image

    @property
    def frames_judged(self) -> int:
        """In how many frames at least one face was judged."""
        return len({frame.index for track in self.tracks for frame in track.frames})

    def to_dict(self) -> dict[str, Any]:
        """The report as report.schema.json has it: plain types, ready for ``json.dumps``."""
        values = _plain(asdict(self))
        del values["damage"]  # the reason has it
        return {"schema_version": SCHEMA_VERSION, **values}

    def to_json(self) -> str:
        """The report as one line of JSON, in ASCII: safe for any pipe and any terminal."""
        return json.dumps(self.to_dict(), allow_nan=False)


def _plain(value: Any) -> Any:
    """Floats to six decimals, tuples to lists, texts by ``in_unicode``."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, str):
        return in_unicode(value)
    return value
