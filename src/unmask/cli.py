"""The command line: every command, each a thin call into a room."""

import argparse
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from unmask.errors import MissingExtraError, UnmaskError, UsageError
from unmask.settings import Setting, for_command, resolve


@dataclass(frozen=True)
class _Argument:
    """What a command is given besides settings: a path, as argparse wants it described."""

    name: str
    help: str
    options: dict


@dataclass(frozen=True)
class _Command:
    run: Callable[[argparse.Namespace, SimpleNamespace], int]
    help: str
    example: str
    arguments: tuple[_Argument, ...]


_COMMANDS: dict[str, _Command] = {}


def _path(name: str, help: str, default: str | None = None, **options) -> _Argument:
    """A path; one with a default may be left away."""
    options["type"] = _to_path
    if default is not None:
        options["default"] = Path(default)
        help = f"{help} (default: {default})"
        if not name.startswith("-"):
            options["nargs"] = "?"
    return _Argument(name, help, options)


def _given(text: str) -> str:
    if not text:  # an empty variable in a script: Path would make it the current folder
        raise argparse.ArgumentTypeError("it is empty: give a path")
    return text


def _to_path(text: str) -> Path:
    return Path(_given(text))


def _check_json(target: str | None, inputs: Iterable[Path]) -> None:
    """Raise UsageError where --json would overwrite an input, as whoever takes it for a switch."""
    from unmask.video import is_media

    if target in (None, "-"):
        return
    path = Path(target)
    there = filter(Path.exists, inputs) if path.exists() else ()
    if is_media(path) or any(map(path.samefile, there)):
        raise UsageError(f"--json takes the file to write, or '-': {target} looks like an input")


def _command(help: str, example: str, *arguments: _Argument):
    def register(function: Callable) -> Callable:
        _COMMANDS[function.__name__] = _Command(function, help, example, arguments)
        return function

    return register


@_command(
    "tell whether the faces in videos or images are real or fake",
    "unmask detect clip.mp4 folder/ --json report.jsonl",
    _path("paths", "video, image, or folder of them", nargs="+", metavar="PATH"),
    _Argument(
        "--json",
        "write one JSON object a line to FILE ('-': standard output)",
        {"metavar": "FILE", "type": _given},
    ),
    _path(
        "--annotate",
        "write a copy of the video (.mp4) or image (.png, .jpg) with boxes and verdicts drawn on "
        "it; for several inputs, a folder",
        metavar="OUT",
    ),
    _path(
        "--html",
        "write the report as a page (.html) that stands on its own; for several inputs, a folder",
        metavar="FILE",
    ),
    _Argument(
        "--robustness",
        "with --html: judge every input again after compression, halving and blur, and show "
        "whether the verdict holds",
        {"action": "store_true"},
    ),
)
def detect(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Judge every file and print a table, or JSON lines; then draw the annotated copies."""
    from unmask.analyze import Analyzer, find_inputs
    from unmask.console import JsonLines, Table
    from unmask.explain import Exhibits

    inputs = find_inputs(args.paths)
    _check_json(args.json, inputs)
    if args.robustness and not args.html:
        raise UsageError("--robustness is shown on the page: add --html FILE")
    outputs, pages = [], []
    if args.annotate:
        from unmask.annotate import annotate_all, plan_outputs

        outputs = plan_outputs(inputs, args.annotate)
    if args.html:
        from unmask.html_report import (
            plan_pages,
            render,
            shown_people,
            verdicts_when_altered,
            write_page,
        )

        pages = plan_pages(inputs, args.html)
    writer = JsonLines(args.json, len(inputs)) if args.json else Table(len(inputs))
    reports = []
    asked = settings.provenance or bool(pages)
    analyzer = Analyzer(**vars(settings) | {"provenance": asked})
    with writer:  # only now is an earlier report overwritten
        for number, path in enumerate(inputs):
            exhibits = Exhibits() if pages else None
            report = analyzer.analyze(path, on_progress=writer.progress, exhibits=exhibits)
            if pages:
                altered = verdicts_when_altered(analyzer, report) if args.robustness else None
                people = shown_people(report, exhibits, analyzer.settings)
                page = render(
                    report, people, card=analyzer.classifier.card, settings=analyzer.settings,
                    command_line=args.command_line, cuts=exhibits.cuts, altered=altered,
                )  # fmt: skip
                write_page(pages[number], page)
            writer.add(report)
            if outputs:
                reports.append(report)
    failures = annotate_all(reports, outputs, settings.threads) if outputs else []
    for failure in failures:
        print(f"unmask detect: {failure}", file=sys.stderr)
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
    _Argument(
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
    _path("--output", "where calibration.json and the results go", "calibration_results"),
)
def calibrate(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Write ``calibration.json`` and a reliability diagram; go on where a run stopped."""
    from unmask.training.calibrate_videos import calibrate_on_videos

    print(calibrate_on_videos(args.model, args.videos, args.output, **vars(settings)))
    return 0


@_command(
    "put two reports, or two models on the same videos, side by side",
    "unmask compare shipped exported/xception_best.xml folder/",
    _Argument("a", "a report that 'detect --json' wrote, or a model: an .xml or 'shipped'",
              {"metavar": "A"}),
    _Argument("b", "likewise", {"metavar": "B"}),
    _path("paths", "what a model is to judge: videos, images, folders", nargs="*", metavar="PATH"),
    _Argument("--json", "write all of it as JSON to FILE ('-': standard output)",
              {"metavar": "FILE", "type": _given}),
)  # fmt: skip
def compare(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Print the table, or write it as JSON."""
    from unmask.compare import compare, print_comparison

    _check_json(args.json, [Path(args.a), Path(args.b), *args.paths])
    found = compare(args.a, args.b, args.paths, **vars(settings))
    if args.json == "-":
        print(found.to_json())
    elif args.json:
        Path(args.json).write_text(found.to_json() + "\n", encoding="utf-8")
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


def _extra(command: str, package: str | None) -> str:
    """The optional part of Unmask that brings a package which a command misses; '' if none."""
    if package in ("pg8000", "redis", "s3fs"):
        return "cluster"
    if package == "nncf":
        return "int8"
    if command in ("serve", "worker"):
        return "web"
    return "train" if command in ("train", "evaluate", "calibrate", "export") else ""


def _parser() -> argparse.ArgumentParser:
    from importlib.metadata import version

    parser = argparse.ArgumentParser(
        prog="unmask",
        description="Tells whether the faces in a video are real or deepfakes, and trains "
        "detectors that do.",
        epilog="Every setting can be set in the environment: --max-frames as UNMASK_MAX_FRAMES. "
        "'unmask COMMAND --help' tells more.",
    )
    parser.add_argument("--version", action="version", version=f"unmask {version('unmask')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        own = commands.add_parser(
            name,
            help=command.help,
            description=command.help[0].upper() + command.help[1:] + ".",
            epilog=f"example: {command.example}",
        )
        for argument in command.arguments:
            own.add_argument(argument.name, help=argument.help, **argument.options)
        group = own.add_argument_group("settings")
        for setting in for_command(name):
            group.add_argument(setting.option, default=None, **_described(setting))
    return parser


def _described(setting: Setting) -> dict:
    """A setting as argparse wants it; its value is checked later, by the table."""
    default = f" (default: {setting.shown_default})" if setting.default != "" else ""
    described = {"dest": setting.name, "help": (setting.help + default).replace("%", "%%")}
    if setting.type is bool:
        return described | {"action": argparse.BooleanOptionalAction}
    if setting.bare is not None:
        described |= {"nargs": "?", "const": setting.bare}
    return described | {"metavar": "|".join(setting.choices) or setting.type.__name__.upper()}


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns 0 when done, 1 when it could not be done, 2 for wrong usage."""
    if sys.stdout is None:  # closed, with '>&-'
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    args = _parser().parse_args(argv)
    args.command_line = shlex.join(["unmask", *(sys.argv[1:] if argv is None else argv)])
    names = [s.name for s in for_command(args.command)]
    if threading.current_thread() is threading.main_thread():
        # A polite kill ends like Ctrl-C: half a file that was being written is removed.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        settings = resolve(args.command, {n: getattr(args, n) for n in names})
        code = _COMMANDS[args.command].run(args, settings)
        sys.stdout.flush()  # here, where a closed pipe or a full disk is told
        return code
    except UnmaskError as error:
        print(f"unmask {args.command}: {error}", file=sys.stderr)
        return 2 if error.is_usage else 1
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("unmask"):
            raise
        extra = _extra(args.command, error.name)
        print(f"unmask {args.command}: {MissingExtraError(args.command, extra, error.name)}",
              file=sys.stderr)  # fmt: skip
        return 1
    except BrokenPipeError:
        # Whoever read the output has seen enough ('| head'): what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A full disk, a folder without rights: nobody wants a traceback for that.
        print(f"unmask {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: what was finished is kept", file=sys.stderr)
        os._exit(130)  # worker threads of the decoder and runtime must not delay the end


if __name__ == "__main__":
    sys.exit(main())
