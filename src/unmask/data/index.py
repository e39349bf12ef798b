"""The index of face crops: one CSV row a crop, beside the crops it describes."""

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from unmask.errors import DatasetError
from unmask.outputs import in_one_step

INDEX_NAME = "index.csv"
SPLITS = ("train", "val", "test")
LABELS = ("real", "fake")
ENOUGH_VIDEOS = 20
"""Videos of a label below which no figure about them is worth much."""


@dataclass(frozen=True)
class Crop:
    """One face crop and where it came from.

    ``path`` is relative to the index; ``video`` names the source (relative to its dataset);
    ``group`` is what must stay on one side of a split (a person, a fake and its source);
    ``face_size`` is the face's shorter side in source pixels; ``blur`` the Laplacian variance at
    256 pixels; ``augmented`` is 0 for the crop itself and k for its k-th altered copy; ``split``
    is empty until there is one.
    """

    path: str
    label: str
    video: str
    group: str
    method: str = ""
    dataset: str = ""
    split: str = ""
    frame: int = 0
    second: float = 0.0
    x1: float = 0.0
    y1: float = 0.0
    x2: float = 0.0
    y2: float = 0.0
    face_size: float = 0.0
    blur: float = 0.0
    score: float = 0.0
    augmented: int = 0

    @property
    def is_fake(self) -> int:
        """1 for fake, 0 for real."""
        return int(self.label == "fake")

    @property
    def source(self) -> tuple[str, str, str, str]:
        """Which video it is of; names alone are not enough, as two datasets may have the same."""
        return self.dataset, self.label, self.method, self.video

    @property
    def is_photo(self) -> bool:
        """Whether it was cut from a photo. Of crops without an index, nobody knows: False."""
        from unmask.video import is_image  # brings the decoder with it

        return is_image(Path(self.video)) and self.video != self.path


def write_index(folder: Path, crops: Iterable[Crop]) -> Path:
    """Write ``folder/index.csv`` in one step: it is whole or it is not there."""
    path = folder / INDEX_NAME
    with in_one_step(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Crop)])
        writer.writeheader()
        writer.writerows(asdict(crop) for crop in crops)
    return path


def read_index(folder: Path) -> list[Crop]:
    """The crops of ``folder/index.csv``. Raises DatasetError when it is missing or damaged."""
    path = folder / INDEX_NAME
    if not path.is_file():
        raise DatasetError(
            f"no {INDEX_NAME} in {folder}: make one with 'unmask preprocess', then 'unmask split'"
        )
    types = {f.name: f.type for f in fields(Crop)}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a mark there
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is damaged ({error}): make it again") from None
    crops = []
    for line, row in enumerate(rows, 2):
        try:
            if None in row.values() or None in row:
                raise ValueError("it is too short or too long")
            crop = Crop(**{k: types[k](v) for k, v in row.items() if k in types})
        except (TypeError, ValueError) as error:
            raise DatasetError(f"{path}, line {line}, is damaged: {error}") from None
        if crop.label not in LABELS:
            raise DatasetError(f"{path}, line {line}: label {crop.label!r} is not real or fake")
        crops.append(crop)
    return crops


def read_split(folder: Path, split: str) -> list[Crop]:
    """The crops of one part (train, val or test) of a split folder.

    A folder without an index but with ``{train,val,test}/{real,fake}/`` pictures is read as well;
    each picture then counts as a video and a group of its own.
    """
    is_split = (folder / INDEX_NAME).is_file()
    if is_split:
        crops = [crop for crop in read_index(folder) if crop.split == split]
    else:
        crops = [
            Crop(path=name, label=label, video=name, group=name, split=split)
            for label in LABELS
            for file in sorted((folder / split / label).glob("*"))
            if file.suffix.lower() in (".jpg", ".jpeg", ".png")
            for name in [file.relative_to(folder).as_posix()]
        ]
    if not crops:
        todo = "run 'unmask preprocess' and 'unmask split'"
        if is_split:
            todo = "add videos, or run 'unmask split' with other --ratios"
        raise DatasetError(f"no {split} crops in {folder}: {todo}")
    return crops


def without_stills(crops: list[Crop]) -> list[Crop]:
    """The crops of moving pictures, where there are enough of both labels to measure anything.

    Sharp portraits are easily told from videos whatever was done to either, so real stills among
    fake videos make a detector look better than it is.
    """
    moving = [crop for crop in crops if not crop.is_photo]
    videos = Counter(label for _, label, *_ in {crop.source for crop in moving})
    return moving if min(videos[label] for label in LABELS) >= ENOUGH_VIDEOS else crops
