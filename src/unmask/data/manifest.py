"""The one internal form of a dataset: a CSV or a folder -> Source rows with safe groups."""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from unmask.data import records
from unmask.data.index import LABELS, SPLITS
from unmask.errors import DatasetError
from unmask.text import in_unicode
from unmask.video import is_image, is_media

_LABEL_NAMES = {"real": "real", "0": "real", "fake": "fake", "1": "fake"}
_SPLIT_NAMES = {"": "", "valid": "val", "validation": "val"} | {name: name for name in SPLITS}
_FACE_FORENSICS = re.compile("[0-9]{3}_[0-9]{3}")
_MOSTLY_FRAMES = 0.8  # of a folder's images named alike, and it is a video's frames
_SHOWN = 5  # problems of a manifest that one error message lists


@dataclass(frozen=True)
class Source:
    """One video, image, or folder of frames.

    ``name`` is its path as the dataset spells it (relative, with ``/``); ``group`` is what must
    stay on one side of a split; ``split`` is empty unless the dataset itself fixes it.
    """

    path: Path
    name: str
    label: str
    group: str = ""
    split: str = ""
    method: str = ""
    dataset: str = ""


def read_manifest(path: str | Path) -> list[Source]:
    """Rows of a CSV with the columns ``path,label[,group,split,method,dataset]``.

    Paths are relative to the CSV's folder; a path may be a folder of frames. Labels are real and
    fake (or 0 and 1). Other columns are ignored. Raises DatasetError with the line number for
    whatever is missing, unknown or there twice.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            lines = [(reader.line_num, row) for row in reader if any(v.strip() for v in row)]
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is no CSV in UTF-8 ({error}): save it as one") from None
    missing = [column for column in ("path", "label") if column not in header]
    if missing:
        raise DatasetError(
            f"{path}, line 1: no column {' and no column '.join(missing)} among "
            f"{', '.join(header) or 'nothing'}; a manifest starts with a line like "
            "path,label,group,split,method,dataset, with commas and no other marks between"
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DatasetError(f"{path}, line 1: there are two columns {twice[0]}: take one out")
    if not lines:
        raise DatasetError(f"{path} has a header but no rows: add one line a video")
    sources, problems, seen = [], [], {}
    for number, row in lines:
        values = {name: value.strip() for name, value in zip(header, row, strict=False)}
        source, problem = _source_of_row(values, path.parent)
        if any(value.strip() for value in row[len(header) :]):
            problem = "more values than the header names: quote a value that has a comma in it"
        if source:
            earlier = seen.setdefault(os.path.realpath(source.path), number)
            if earlier != number:
                problem = f"{source.name} is already in line {earlier}"
            sources.append(source)
        if problem:
            problems.append(f"line {number}: {problem}")
    if problems:
        more = len(problems) - _SHOWN
        shown = "; ".join(problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise DatasetError(f"{path}, {shown}. Correct these lines or take them out")
    return join_groups(sources)


def _source_of_row(values: dict[str, str], folder: Path) -> tuple[Source | None, str]:
    """One manifest row as a Source, or None and what is wrong with it."""
    name, label = values.get("path", ""), values.get("label", "")
    split = values.get("split", "").lower()
    if not name:
        return None, "no path"
    if label.lower() not in _LABEL_NAMES:
        return None, f"label {label!r} is not real or fake"
    if split not in _SPLIT_NAMES:
        return None, f"split {split!r} is not one of {', '.join(SPLITS)} or empty"
    if not (folder / name).exists():
        return None, f"{name} does not exist in {folder}"
    return Source(
        path=folder / name,
        name=Path(name).as_posix(),
        label=_LABEL_NAMES[label.lower()],
        group=values.get("group", ""),
        split=_SPLIT_NAMES[split],
        method=values.get("method", ""),
        dataset=values.get("dataset", ""),
    ), ""


def scan_dataset(folder: str | Path) -> list[Source]:
    """What lies in ``folder/real`` and ``folder/fake``.

    Videos and images count one each, in any depth; a folder (other than ``real`` and ``fake``
    themselves) that holds nothing but images named alike, ``frame1.png``, ``frame2.png``, ..., is
    one video given as frames. ``fake/<method>/...`` names the method. Raises DatasetError when
    there is nothing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(
            f"no folder {folder}: give a folder with real/ and fake/ in it, or --manifest FILE.csv"
        )
    sources = []
    for label_folder in sorted(folder.iterdir()):
        label = label_folder.name.lower()
        if label not in LABELS or not label_folder.is_dir():
            continue
        for path in _media(label_folder, is_top=True):
            parents = path.relative_to(label_folder).parts[:-1]
            method = in_unicode(parents[0]) if label == "fake" and parents else ""
            name = in_unicode(path.relative_to(folder).as_posix())
            sources.append(Source(path, name, label, method=method))
    if not sources:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise DatasetError(
            f"no videos or images in {folder}/real or {folder}/fake (found: {found}): put them "
            "there, or list them in a CSV and give --manifest FILE.csv"
        )
    return join_groups(sources)


def _media(folder: Path, is_top: bool = False) -> Iterator[Path]:
    """Videos, images and folders of frames below ``folder``, sorted as people would."""
    children = [p for p in sorted(folder.iterdir(), key=natural_key) if p.name[0] != "."]
    files = [p for p in children if p.is_file() and is_media(p)]
    # Crops that 'preprocess' wrote in here are no photos: fake ones would count as real.
    folders = [p for p in children if p.is_dir() and not (p / records.FOLDER).is_dir()]
    if files and not is_top and not folders and _are_frames(files):
        yield folder
        return
    yield from files
    for child in folders:
        yield from _media(child)


def _are_frames(files: list[Path]) -> bool:
    """Whether these are images that are named alike but for their numbers.

    Raises DatasetError where most are, but not all: judged one by one, a video would be torn apart.
    """
    if not all(map(is_image, files)):
        return False
    names = Counter(re.sub("[0-9]+", "#", path.name.lower()) for path in files)
    ((usual, count),) = names.most_common(1)
    if "#" not in usual or count < _MOSTLY_FRAMES * len(files):
        return False
    if count < len(files):
        odd = next(f for f in files if re.sub("[0-9]+", "#", f.name.lower()) != usual)
        raise DatasetError(
            f"{odd.parent} looks like a video's frames, but {odd.name} is named otherwise: move it "
            "away, or list what is there in a CSV and give --manifest FILE.csv"
        )
    return True


def frame_files(folder: Path) -> list[Path]:
    """The images of a folder of frames in order (``frame2`` before ``frame10``)."""
    files = (p for p in folder.iterdir() if is_image(p) and p.name[0] != "." and p.is_file())
    return sorted(files, key=natural_key)


def natural_key(path: Path) -> list:
    """Sort key that takes runs of digits as numbers."""
    parts = re.split("([0-9]+)", path.name)
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(parts)] + [path.name]


def join_groups(sources: list[Source]) -> list[Source]:
    """Fill in the groups that are not stated, so that a fake stays with what it was made from.

    The default group is the file's stem (or the folder's name). A fake whose stated group is no
    real video's group but one's name, as DFDC's 'original' is, joins that video. A fake without one
    also joins every real video of the same dataset that has its stem, and, when it is named
    ``<target>_<source>`` after two real videos, both of these. A name like FaceForensics++'s
    ``000_003`` tells by itself that it is made of ``000`` and ``003``, whichever of them are there.
    """
    reals: dict[tuple[str, str], set[str]] = {}
    for source in sources:
        if source.label == "real":
            key = source.dataset, _stem(source)
            reals.setdefault(key, set()).add(_own_group(source))
        elif _FACE_FORENSICS.fullmatch(_stem(source)):  # as if both were there
            for name in _stem(source).split("_"):
                group = _default_group(source, name)
                reals.setdefault((source.dataset, name), set()).add(group)
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while (above := parent.get(group, group)) != group:
            parent[group] = parent.get(above, above)
            group = above
        return group

    stated = {source.group for source in sources if source.label == "real"}
    by_name: dict[tuple[str, str], set[str]] = {}
    for source in (source for source in sources if source.label == "real"):
        for name in {_stem(source), in_unicode(source.path.name)} - stated:
            by_name.setdefault((source.dataset, name), set()).add(_own_group(source))
    for source in sources:
        if source.label == "real":
            continue
        for group in _joined(source, reals, by_name):
            # The smaller name becomes the root, so names do not depend on the order of rows.
            first, second = sorted((root(group), root(_own_group(source))))
            parent[second] = first
    return [replace(source, group=root(_own_group(source))) for source in sources]


def _joined(
    source: Source, reals: dict[tuple[str, str], set[str]], by_name: dict[tuple[str, str], set[str]]
) -> set[str]:
    """The groups of the real videos that a fake belongs with, by its stated group or its name."""
    if source.group:
        return by_name.get((source.dataset, source.group), set())
    stem = _stem(source)
    joined = set(reals.get((source.dataset, stem), ()))
    for cut in (i for i, letter in enumerate(stem) if letter == "_"):
        target = reals.get((source.dataset, stem[:cut]))
        origin = reals.get((source.dataset, stem[cut + 1 :]))
        if target and origin:
            joined |= target | origin
    return joined


def _stem(source: Source) -> str:
    return in_unicode(source.path.name if source.path.is_dir() else source.path.stem)


def _own_group(source: Source) -> str:
    return source.group or _default_group(source, _stem(source))


def _default_group(source: Source, name: str) -> str:
    return f"{source.dataset}/{name}" if source.dataset else name
