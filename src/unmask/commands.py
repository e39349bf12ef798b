"""Every command of ``unmask``: what it is given, and the room that does it."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from unmask.errors import UsageError
from unmask.text import printable


@dataclass(frozen=True)
class Argument:
    """What a command is given besides settings: a path, as argparse wants it described."""

    name: str
    help: str
    options: dict


@dataclass(frozen=True)
class Command:
    """What ``unmask NAME`` runs, how ``--help`` explains it, and what it is given."""

    run: Callable[[argparse.Namespace, SimpleNamespace], int]
    help: str
    example: str
    arguments: tuple[Argument, ...]


COMMANDS: dict[str, Command] = {}


def _path(name: str, help: str, default: str | None = None, **options) -> Argument:
    """A path; one with a default may be left away."""
    options["type"] = _to_path
    if default is not None:
        options["default"] = Path(default)
        help = f"{help} (default: {default})"
        if not name.startswith("-"):
            options["nargs"] = "?"
    return Argument(name, help, options)


def _given(text: str) -> str:
    if not text:  # an empty variable in a script: Path would make it the current folder
        raise argparse.ArgumentTypeError("it is empty: give a path")
    return text


def _to_path(text: str) -> Path:
    return Path(_given(text))


def complain(command: str, problem: str) -> None:
    """Say on standard error what is wrong; names of files in it cannot steer the terminal."""
    lines = "\n".join(map(printable, problem.splitlines()))
    print(f"unmask {command}: {lines}", file=sys.stderr)


def _command(help: str, example: str, *arguments: Argument):
    def register(function: Callable) -> Callable:
        COMMANDS[function.__name__] = Command(function, help, example, arguments)
        return function

    return register


@_command(
    "tell whether the faces in videos or images are real or fake",
    "unmask detect clip.mp4 folder/ --json report.jsonl",
    _path("paths", "video, image, or folder of them", nargs="+", metavar="PATH"),
    Argument("--json", "write one JSON object a line to FILE ('-': standard output)",
             {"metavar": "FILE", "type": _given}),
    _path("--annotate",
          "write a copy of the video (.mp4) or image (.png, .jpg) with boxes and verdicts drawn on "
          "it; for several inputs, a folder", metavar="OUT"),
    _path("--html",
          "write the report as a page (.html) that stands on its own; for several inputs, a folder",
          metavar="FILE"),
    Argument("--robustness",
             "with --html: judge every input again after compression, halving and blur, and show "
             "whether the verdict holds", {"action": "store_true"}),
    Argument("--resume",
             "with --json FILE: go on where an interrupted run stopped; what FILE says of files "
             "that are still the same is kept", {"action": "store_true"}),
)  # fmt: skip
def detect(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Judge every file and write what was asked for."""
    from unmask.detect import detect

    failures = detect(
        args.paths, settings, json=args.json, annotate=args.annotate, html=args.html,
        robustness=args.robustness, resume=args.resume, command_line=args.command_line,
    )  # fmt: skip
    for failure in failures:
        complain("detect", str(failure))
    return 1 if failures else 0


@_command(
    "cut the faces out of a folder of real and fake videos",
    "unmask preprocess dataset preprocessed --augment 2",
    _path("dataset", "folder with real/ and fake/", "dataset"),
    _path("output", "where the crops go", "preprocessed"),
)
def preprocess(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Fill the folder of crops; go on where an earlier run stopped."""
    from unmask.data.preprocess import preprocess

    print(preprocess(args.dataset, args.output, **vars(settings)))
    return 0


@_command(
    "drop bad crops and split the rest by person into train, val and test",
    "unmask split preprocessed preprocessed_split --ratios 70/15/15",
    _path("preprocessed", "folder that 'preprocess' filled", "preprocessed"),
    _path("output", "where the split goes", "preprocessed_split"),
)
def split(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Make the split folder."""
    from unmask.data.split import split

    print(split(args.preprocessed, args.output, **vars(settings)))
    return 0


@_command(
    "train a detector on a split",
    "unmask train preprocessed_split runs/first --epochs 20 --resume",
    _path("split", "folder that 'split' made", "preprocessed_split"),
    _path("output", "where weights, logs and curves go", "runs/latest"),
)
def train(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Train and save ``xception_best.h5``."""
    from unmask.training.fit import fit

    print(fit(args.split, args.output, **vars(settings)))
    return 0


@_command(
    "measure a model on a split's test crops, or on labelled videos",
    "unmask evaluate shipped --videos manifest.csv",
    _path("model", "an .h5 or .xml; 'shipped' is Unmask's own", "runs/latest/xception_best.h5"),
    _path("--split", "folder that 'split' made", "preprocessed_split"),
    Argument(
        "--part",
        "which part of the split (default: test), or of the manifest by its column 'split' "
        "(default: all)",
        {"choices": ("train", "val", "test")},
    ),
    _path("--videos", "judge the videos of this manifest (path,label,...) instead", metavar="CSV"),
    _path("--output", "where the results go", "evaluation_results"),
)
def evaluate(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Write ``metrics_report.txt``, ``metrics.json`` and the pictures."""
    from unmask.training.evaluate import evaluate

    result = evaluate(
        args.model, args.split, args.videos, args.output, part=args.part, **vars(settings)
    )
    print(result)
    return 0


@_command(
    "fit the probabilities to your own labelled videos, for 'detect --calibration'",
    "unmask calibrate shipped --videos manifest.csv --false-positives 0.02",
    _path("model", "an .h5 or .xml; 'shipped' is Unmask's own"),
    _path("--videos", "the manifest (path,label,...) of the videos", metavar="CSV", required=True),
    Argument(
        "--part",
        "which part of the manifest, by its column 'split' (default: all, if none is test)",
        {"choices": ("train", "val", "test")},
    ),
    _path("--output", "where calibration.json and the results go", "calibration_results"),
)
def calibrate(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Write ``calibration.json`` and a reliability diagram; go on where a run stopped."""
    from unmask.training.calibrate_videos import calibrate_on_videos

    print(
        calibrate_on_videos(args.model, args.videos, args.output, part=args.part, **vars(settings))
    )
    return 0


@_command(
    "put two reports, or two models on the same videos, side by side",
    "unmask compare shipped exported/xception_best.xml folder/",
    Argument("a", "a report that 'detect --json' wrote, or a model: an .xml or 'shipped'",
              {"metavar": "A"}),
    Argument("b", "likewise", {"metavar": "B"}),
    _path("paths", "what a model is to judge: videos, images, folders", nargs="*", metavar="PATH"),
    Argument("--json", "write all of it as JSON to FILE ('-': standard output)",
              {"metavar": "FILE", "type": _given}),
)  # fmt: skip
def compare(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Print the table, or write it as JSON."""
    from unmask.compare import compare, print_comparison
    from unmask.outputs import check_json, write_whole

    check_json(args.json, [Path(args.a), Path(args.b), *args.paths])
    found = compare(args.a, args.b, args.paths, **vars(settings))
    if args.json == "-":
        print(found.to_json())
    elif args.json:
        write_whole(Path(args.json), found.to_json() + "\n")
    else:
        print_comparison(found)
    return 0


@_command(
    "watch a running 'preprocess'",
    "unmask monitor preprocessed --interval 10",
    _path("preprocessed", "folder that 'preprocess' is filling", "preprocessed"),
)
def monitor(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Print progress until it is done or interrupted."""
    from unmask.data.monitor import monitor

    monitor(args.preprocessed, **vars(settings))
    return 0


@_command(
    "turn a trained .h5 into ONNX and the form that 'detect' runs",
    "unmask export runs/latest/xception_best.h5 exported",
    _path("model", "the trained model", "runs/latest/xception_best.h5"),
    _path("output", "where the exported model goes", "exported"),
    _path(
        "--crops",
        "folder of face crops to check on (default: preprocessed_split, if there is one, "
        "else made-up pictures)",
    ),
    _path(
        "--calibrate",
        "fit the probabilities on this split's validation videos, or on a held_out.csv",
        metavar="SPLIT|CSV",
    ),
    _path(
        "--int8",
        "also write NAME_int8.xml, of 8 bits, which judges faster and a little differently; it is "
        "fitted to the real crops of this folder, which 'preprocess' or 'split' filled (extra "
        "'int8')",
        metavar="FOLDER",
    ),
)
def export(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Write ``.onnx``, ``.xml``, ``.bin`` and ``.json`` and check that they agree with the h5."""
    from unmask.training.export import export

    usual = Path("preprocessed_split")
    crops = args.crops or (usual if usual.is_dir() else None)
    print(export(args.model, args.output, crops, args.calibrate, args.int8, **vars(settings)))
    return 0


@_command(
    "forge the faces of a video as training does with crops, or show what training sees",
    "unmask synthesize real.mp4 fake.mp4 --donor portrait.jpg",
    _path("source", "video of real people; or a folder of portraits, for a sheet of all families"),
    _path("output", "the forged video (.mp4), or the sheet (.jpg), to write"),
    _path("--donor", "portrait whose face 'cross_swap' puts on", metavar="IMAGE"),
)
def synthesize(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Write the forged copy, or the picture sheet."""
    from unmask.data.synthesize import sheet, synthesize

    if args.source.is_dir():
        if args.donor:
            raise UsageError("a sheet shows all families on the folder's own portraits: no --donor")
        print(sheet(args.source, args.output, seed=settings.seed))
    else:
        print(synthesize(args.source, args.output, donor=args.donor, **vars(settings)))
    return 0


@_command(
    "run the web application: hand in videos and see in the browser why they look real or fake",
    "unmask serve --port 8080 --data-folder /srv/unmask",
)
def serve(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Serve until interrupted."""
    from unmask.web.app import serve

    return serve(settings)


@_command(
    "judge what is handed in to 'unmask serve', also from other machines",
    "unmask worker --database postgresql+pg8000://unmask@db/unmask --queue redis://queue "
    "--storage s3://bucket/unmask",
)
def worker(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Work until interrupted."""
    from unmask.web.worker import run

    return run(settings)
