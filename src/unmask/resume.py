"""What an interrupted 'detect --json FILE' left, to go on with; and no two runs in one FILE.

FILE.run beside FILE has what its reports depend on besides the inputs, and is locked meanwhile.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from unmask import __version__
from unmask.analyzer import Analyzer
from unmask.decoder import digest
from unmask.errors import UsageError
from unmask.outputs import exclusive, in_one_step, no_room, opened
from unmask.report import ModelReport, Report
from unmask.text import in_unicode

# Files are told apart by what is in them; threads change nothing, and each report has its own
# provenance or none.
_NOT_COMPARED = ("model", "calibration", "trust_list", "threads", "provenance")


@dataclass(frozen=True)
class Kept:
    """A report of an earlier run: its line of JSON, and what tells whether it still holds."""

    line: bytes
    sha256: str | None
    verdict: str
    has_provenance: bool

    def holds(self, path: Path, wants_provenance: bool) -> bool:
        """Whether judging the file again would come to the same."""
        if self.verdict == "unreadable" or (wants_provenance and not self.has_provenance):
            return False
        now, _ = digest(path)
        return now is not None and now == self.sha256

    def report(self) -> Report:
        """The report, without its provenance."""
        return Report.from_dict(json.loads(self.line))


@contextmanager
def kept_reports(
    target: str, analyzer: Analyzer, inputs: Sequence[Path], is_resumed: bool, robustness: bool,
    is_done: Callable[[int, Kept], bool],
) -> Iterator[dict[Path, Kept]]:  # fmt: skip
    """Gives those inputs whose reports in ``target`` stay; no other run can write it meanwhile.

    The others' reports are taken out of it, as is all unless it ``is_resumed``. ``is_done`` says of
    an input, by its number, whether all else is there that was to be made of it. Raises UsageError,
    before anything is touched, when another run has the file, or when it holds something else than
    reports by the same model and settings.
    """
    file = Path(os.path.realpath(target))
    run = file.with_name(file.name + ".run")
    if is_resumed and not run.exists() and file.exists() and file.stat().st_size:
        raise _not_to_be_resumed(target, f"there is no {run.name} beside it")
    with exclusive(run) as held:
        card, earlier = _card(analyzer, robustness), _read_card(run, held)
        reports = _read(target, card, earlier) if is_resumed else {}
        kept = {}
        for number, path in enumerate(inputs):
            found = reports.get(in_unicode(str(path)))
            if found and found.holds(path, analyzer.settings.provenance) and is_done(number, found):
                kept[path] = found
            elif found:
                del reports[in_unicode(str(path))]
        _start(file, [report.line for report in reports.values()], held, card)
        yield kept


def _card(analyzer: Analyzer, robustness: bool) -> dict[str, Any]:
    """What reports and their pages depend on besides the files, under flat names."""
    settings, model = analyzer.settings, analyzer.classifier.card
    return {
        "unmask": __version__,
        "model": asdict(ModelReport(model.name, model.version, model.sha256, model.calibration)),
        "trust_list": digest(Path(settings.trust_list))[0] if settings.trust_list else None,
        **{k: v for k, v in vars(settings).items() if k not in _NOT_COMPARED},
        **({"robustness": True} if robustness else {}),
    }


def _read_card(run: Path, held: IO[str]) -> dict[str, Any]:
    """The card of the earlier run, empty if it wrote none."""
    try:
        text = held.read()
        card = json.loads(text) if text else {}
    except ValueError:
        card = None
    if not isinstance(card, dict) or (card and "unmask" not in card):
        raise UsageError(f"{run} is in the way: move it, or give --json another file")
    return card


def _read(target: str, card: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Kept]:
    """The reports of whole lines by the path in them. A last line that was cut off is left out."""
    path, reports = Path(target), {}
    if not path.exists() or not path.stat().st_size:
        return {}
    changed = [name for name in card | earlier if card.get(name) != earlier.get(name)]
    if changed:
        what = ", ".join(changed) if earlier else "what they were is not known"
        raise _not_to_be_resumed(target, f"another model or other settings made it ({what})")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                values = json.loads(line)
                fits = values["model"] == card["model"]
                reports[values["path"]] = Kept(
                    line, values["sha256"], values["verdict"], bool(values["provenance"])
                )
            except (ValueError, KeyError, TypeError, RecursionError):
                fits = False
            if not fits:
                raise _not_to_be_resumed(target, f"line {number} is no report by this model")
    return reports


def _not_to_be_resumed(target: str, why: str) -> UsageError:
    return UsageError(
        f"cannot go on with {target}, {why}: give --json another file, repeat the earlier command "
        "with --resume, or leave --resume away to have it overwritten"
    )


def _start(file: Path, lines: list[bytes], held: IO[str], card: dict[str, Any]) -> None:
    """Leave these lines alone in the file, and the card beside it."""
    try:
        if not lines:
            with opened(file, "a") as earlier:
                held.truncate(0)  # if it ends here, no earlier report is taken for this run's
                earlier.truncate(0)
            os.write(held.fileno(), json.dumps(card).encode())
        elif sum(map(len, lines)) != file.stat().st_size:
            with in_one_step(file) as partial:
                partial.write_bytes(b"".join(lines))
    except OSError as error:
        raise no_room(file, error) from None
