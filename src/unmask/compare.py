"""Two opinions on the same videos, side by side: of two saved reports, or of two models."""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unmask.card import SHIPPED_NAME
from unmask.console import output_console, safe_text, table_of_files, verdict_text
from unmask.errors import UsageError
from unmask.report import SCHEMA_VERSION
from unmask.verdict import VERDICTS

if TYPE_CHECKING:
    from unmask.analyzer import Analyzer

_MODEL_SUFFIXES = (".xml", ".h5", ".keras", ".onnx")  # all but .xml are refused, with a reason
_FEWEST_TO_CORRELATE = 3  # two points always lie on a line


@dataclass(frozen=True)
class Judged:
    """One video as a report has it: those fields of docs/report.md."""

    path: str
    sha256: str | None
    verdict: str
    probability_fake: float | None


@dataclass(frozen=True)
class Pair:
    """A video in both; ``matched_by`` is 'sha256', or 'path' where that found no partner."""

    a: Judged
    b: Judged
    matched_by: str

    @property
    def change(self) -> float | None:
        """The probability of fake in b, less that in a; None where one has none."""
        p, q = self.a.probability_fake, self.b.probability_fake
        return None if p is None or q is None else q - p

    @property
    def verdict_changed(self) -> bool:
        """Whether the verdicts differ."""
        return self.a.verdict != self.b.verdict

    @property
    def file_changed(self) -> bool:
        """Whether the files are known not to be the same."""
        return None not in (self.a.sha256, self.b.sha256) and self.a.sha256 != self.b.sha256

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "a": asdict(self.a),
            "b": asdict(self.b),
            "matched_by": self.matched_by,
            "verdict_changed": self.verdict_changed,
            "change": _rounded(self.change),
        }


@dataclass(frozen=True)
class Comparison:
    """Everything in both ``a`` and ``b`` (their names), the largest changes first, and the rest."""

    a: str
    b: str
    pairs: list[Pair]
    only_a: list[Judged]
    only_b: list[Judged]

    @property
    def verdicts_changed(self) -> int:
        """How many videos got another verdict."""
        return sum(pair.verdict_changed for pair in self.pairs)

    @property
    def mean_absolute_change(self) -> float | None:
        """Of the probabilities, over the videos that have two; None where there is none."""
        changes = [abs(pair.change) for pair in self.pairs if pair.change is not None]
        return float(np.mean(changes)) if changes else None

    @property
    def correlation(self) -> float | None:
        """Pearson's, of the probabilities; None with too few of them, or where they are all one."""
        both = [pair for pair in self.pairs if pair.change is not None]
        p = np.array([[side.probability_fake for side in (pair.a, pair.b)] for pair in both])
        if len(both) < _FEWEST_TO_CORRELATE or not np.ptp(p, axis=0).all():
            return None
        return float(np.corrcoef(p.T)[0, 1])

    @property
    def summary(self) -> str:
        """All of it in a line."""
        if not self.pairs:
            text = "no video is in both"
        else:
            text = f"{self.verdicts_changed} of {len(self.pairs)} verdicts changed"
        if self.mean_absolute_change is not None:
            text += f"; probabilities moved by {self.mean_absolute_change:.3f} on average"
        if self.correlation is not None:
            text += f" (correlation {self.correlation:.3f})"
        for rest, name in ((self.only_a, "A"), (self.only_b, "B")):
            if rest:
                text += f"; {len(rest)} only in {name}"
        return text

    def to_json(self) -> str:
        """All of it as one JSON object, in ASCII, with numbers of at most six decimals."""
        content = {
            "a": self.a,
            "b": self.b,
            "videos": len(self.pairs),
            "verdicts_changed": self.verdicts_changed,
            "mean_absolute_change": _rounded(self.mean_absolute_change),
            "correlation": _rounded(self.correlation),
            "pairs": [pair.as_dict() for pair in self.pairs],
            "only_a": list(map(asdict, self.only_a)),
            "only_b": list(map(asdict, self.only_b)),
        }
        return json.dumps(content, indent=2, allow_nan=False)


def compare(
    a: str | Path, b: str | Path, paths: Sequence[Path] = (), **settings: Any
) -> Comparison:
    """Put ``a`` and ``b`` side by side, each a report or a model.

    A report is a file that 'detect --json' wrote. A model is an .xml or 'shipped'; it judges the
    ``paths`` now, with the ``settings`` of 'unmask compare'. Raises UsageError for a file that is
    no report, a model without paths and paths without a model, ModelError for one that cannot run.
    """
    models = [_is_model(side) for side in (a, b)]
    if any(models) and not paths:
        name = (a, b)[models.index(True)]
        raise UsageError(f"{name} is a model: name the videos that it is to judge behind it")
    if paths and not any(models):
        raise UsageError(
            f"{a} and {b} are reports already: give no videos, or a model ('shipped' or an .xml)"
        )
    # Nobody wants to wait for one side and then hear that the other cannot be read.
    inputs = _inputs(paths) if any(models) else []
    sides = [_model(str(side), settings) if is_model else _read(Path(side))
             for side, is_model in zip((a, b), models, strict=True)]  # fmt: skip
    judged = [side if isinstance(side, list) else _judge(side, str(name), inputs)
              for name, side in zip((a, b), sides, strict=True)]  # fmt: skip
    pairs, only_a, only_b = _match(*judged)
    pairs.sort(key=lambda pair: (not pair.verdict_changed, -abs(pair.change or 0)))
    return Comparison(str(a), str(b), pairs, only_a, only_b)


def print_comparison(found: Comparison) -> None:
    """Print the table, what is in one only and the summary to standard output."""
    console = output_console()
    for name, side in (("A", found.a), ("B", found.b)):
        console.print(safe_text(f"{name}: {side}"))
    if found.pairs:
        table = table_of_files("A", "B")
        for heading in ("probability\nof fake A", "B", "change"):
            table.add_column(heading, justify="right", no_wrap=True)
        for pair in found.pairs:
            p, q = pair.a.probability_fake, pair.b.probability_fake
            table.add_row(
                safe_text(pair.a.path + (" (not the same file)" if pair.file_changed else "")),
                verdict_text(pair.a.verdict),
                verdict_text(pair.b.verdict),
                *("-" if x is None else f"{x:.2f}" for x in (p, q)),
                "-" if pair.change is None else f"{pair.change:+.2f}",
            )
        console.print(table)
    for name, rest in (("A", found.only_a), ("B", found.only_b)):
        for judged in rest:
            p = judged.probability_fake
            shown = "" if p is None else f" ({p:.2f})"
            console.print(safe_text(f"only in {name}: {judged.path}: {judged.verdict}{shown}"))
    console.print(safe_text(found.summary, "bold"))
    sys.stdout.flush()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _is_model(side: str | Path) -> bool:
    return str(side) == SHIPPED_NAME or Path(side).suffix.lower() in _MODEL_SUFFIXES


def _model(name: str, settings: dict[str, Any]) -> "Analyzer":
    from unmask.analyzer import Analyzer

    # A calibration belongs to one model only, so one in the environment is not for these.
    return Analyzer(
        model=name, calibration="", provenance=False, trust_list="", **settings,
    )  # fmt: skip


def _inputs(paths: Sequence[Path]) -> list[Path]:
    from unmask.inputs import find_inputs  # brings the decoder with it

    return find_inputs(paths)


def _judge(analyzer: "Analyzer", name: str, inputs: Sequence[Path]) -> list[Judged]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    bar = track(inputs, name, console=console, transient=True, disable=not console.is_terminal)
    return [_judged(analyzer.analyze(path).to_dict()) for path in bar]


def _read(path: Path) -> list[Judged]:
    """The videos of a report. Raises UsageError when it is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(
            f"the report {path} cannot be read ({error.strerror}): check the name, or give a model "
            "('shipped' or an .xml)"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(
            f"{path} is no report: give a file that 'unmask detect --json' wrote, or a model"
        ) from None
    judged = []
    for number, line in enumerate(lines, 1):
        try:
            judged.append(_judged(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UsageError(
                f"{path}, line {number}, is no report of an input: write it again with "
                "'unmask detect --json'"
            ) from None
    if not judged:
        raise UsageError(f"{path} is empty: write it with 'unmask detect --json'")
    return judged


def _judged(fields: dict[str, Any]) -> Judged:
    """What is compared of a report's JSON; ValueError, KeyError or TypeError if it is none."""
    judged = Judged(*(fields[name] for name in ("path", "sha256", "verdict", "probability_fake")))
    p = judged.probability_fake
    fits = (
        fields["schema_version"] == SCHEMA_VERSION
        and isinstance(judged.path, str)
        and isinstance(judged.sha256, str | None)
        and judged.verdict in VERDICTS
        and (p is None or (isinstance(p, int | float) and 0 <= p <= 1))
    )
    if not fits:
        raise ValueError("not a report of this version")
    return judged


def _match(
    a: Sequence[Judged], b: Sequence[Judged]
) -> tuple[list[Pair], list[Judged], list[Judged]]:
    """Pairs, and what is left of a and b; each video is in one pair at most, in the order of a."""
    keys: tuple[tuple[str, Callable[[Judged], Hashable]], ...] = (
        ("sha256", lambda judged: judged.sha256 and (judged.sha256, judged.path)),
        ("sha256", lambda judged: judged.sha256),
        ("path", lambda judged: judged.path),
    )
    partner: dict[int, tuple[int, str]] = {}
    free = set(range(len(b)))
    for matched_by, key in keys:
        waiting = defaultdict(list)
        for j in sorted(free, reverse=True):  # the first one is taken first
            waiting[key(b[j])].append(j)
        for i, judged in enumerate(a):
            if i not in partner and key(judged) and waiting[key(judged)]:
                partner[i] = waiting[key(judged)].pop(), matched_by
        free -= {j for j, _ in partner.values()}
    pairs = [Pair(a[i], b[j], by) for i, (j, by) in sorted(partner.items())]
    only_a = [judged for i, judged in enumerate(a) if i not in partner]
    return pairs, only_a, [b[j] for j in sorted(free)]
