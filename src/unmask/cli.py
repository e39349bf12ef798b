"""The command line: every command, each a thin call into a room."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from unmask.errors import MissingExtraError, UnmaskError
from unmask.settings import for_command, resolve

_COMMANDS: dict[str, tuple[Callable, str, str]] = {}


def _command(help: str, example: str):
    def register(function: Callable) -> Callable:
        _COMMANDS[function.__name__] = (function, help, example)
        return function

    return register


@_command(
    "tell whether the faces in videos or images are real or fake",
    "unmask detect clip.mp4 folder/ --json report.jsonl",
)
def detect(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Judge every file and print a table, or JSON lines."""
    from unmask.analyze import Analyzer, find_inputs
    from unmask.report import JsonLines, Table

    inputs = find_inputs(args.paths)
    writer = JsonLines(args.json, len(inputs)) if args.json else Table(len(inputs))
    with writer:
        analyzer = Analyzer(**vars(settings))
        for path in inputs:
            writer.add(analyzer.analyze(path, on_progress=writer.progress))
    return 0


@_command(
    "cut the faces out of a folder of real and fake videos",
    "unmask preprocess dataset preprocessed --augment 2",
)
def preprocess(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Fill the folder of crops; go on where an earlier run stopped."""
    from unmask.data.preprocess import preprocess

    print(preprocess(args.dataset, args.output, **vars(settings)))
    return 0


@_command(
    "drop bad crops and split the rest by person into train, val and test",
    "unmask split preprocessed preprocessed_split --ratios 70/15/15",
)
def split(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Make the split folder."""
    from unmask.data.split import split

    print(split(args.preprocessed, args.output, **vars(settings)))
    return 0


@_command("train a detector on a split", "unmask train preprocessed_split --epochs 20 --resume")
def train(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Train and save ``xception_best.h5``."""
    from unmask.training.fit import fit

    print(fit(args.split, args.output, **vars(settings)))
    return 0


@_command(
    "measure a model on a split's test crops, or on labelled videos",
    "unmask evaluate --videos manifest.csv",
)
def evaluate(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Write ``metrics_report.txt``, ``metrics.json`` and the pictures."""
    from unmask.training.evaluate import evaluate

    print(evaluate(args.model, args.split, args.videos, args.output, part=args.part,
                   **vars(settings)))  # fmt: skip
    return 0


@_command("watch a running 'preprocess'", "unmask monitor preprocessed --interval 10")
def monitor(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Print progress until it is done or interrupted."""
    from unmask.data.monitor import monitor

    monitor(args.preprocessed, **vars(settings))
    return 0


@_command(
    "turn a trained .h5 into ONNX and the form that 'detect' runs",
    "unmask export xception_best.h5 exported",
)
def export(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Write ``.onnx``, ``.xml``, ``.bin`` and ``.json`` and check that they agree with the h5."""
    from unmask.training.export import export

    print(export(args.model, args.output, crops=args.crops))
    return 0


@_command(
    "forge the faces of a video, as training does with crops",
    "unmask synthesize real.mp4 fake.mp4 --donor portrait.jpg",
)
def synthesize(args: argparse.Namespace, settings: SimpleNamespace) -> int:
    """Write the forged copy."""
    from unmask.data.synthesize import synthesize

    print(synthesize(args.video, args.output, donor=args.donor, **vars(settings)))
    return 0


def _parser() -> argparse.ArgumentParser:
    from importlib.metadata import version

    parser = argparse.ArgumentParser(
        prog="unmask",
        description="Tells whether the faces in a video are real or deepfakes, and trains "
        "detectors that do.",
        epilog="Every option can be set in the environment: --max-frames as UNMASK_MAX_FRAMES. "
        "'unmask COMMAND --help' tells more.",
    )
    parser.add_argument("--version", action="version", version=f"unmask {version('unmask')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    own: dict[str, argparse.ArgumentParser] = {}
    for name, (_, help, example) in _COMMANDS.items():
        own[name] = commands.add_parser(
            name, help=help, description=help[0].upper() + help[1:] + ".",
            epilog=f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip

    def folder(command: str, name: str, default: str, help: str) -> None:
        own[command].add_argument(
            name, nargs="?", type=Path, default=Path(default), help=f"{help} (default: {default})"
        )

    own["detect"].add_argument("paths", nargs="+", type=Path, metavar="PATH",
                               help="video, image, or folder of them")  # fmt: skip
    own["detect"].add_argument("--json", metavar="FILE",
                               help="write one JSON object a line to FILE ('-': standard output)")  # fmt: skip
    folder("preprocess", "dataset", "dataset", "folder with real/ and fake/")
    folder("preprocess", "output", "preprocessed", "where the crops go")
    folder("split", "preprocessed", "preprocessed", "folder that 'preprocess' filled")
    folder("split", "output", "preprocessed_split", "where the split goes")
    folder("train", "split", "preprocessed_split", "folder that 'split' made")
    folder("train", "output", "runs/latest", "where weights, logs and curves go")
    folder(
        "evaluate", "model", "xception_best.h5", "an .h5 or .xml model; 'shipped' is Unmask's own"
    )
    own["evaluate"].add_argument("--split", type=Path, default=Path("preprocessed_split"),
                                 help="folder that 'split' made (default: preprocessed_split)")  # fmt: skip
    own["evaluate"].add_argument("--part", default="test", choices=("train", "val", "test"),
                                 help="which part of the split (default: test)")  # fmt: skip
    own["evaluate"].add_argument("--videos", type=Path, metavar="CSV",
                                 help="judge the videos of this manifest (path,label,...) instead")  # fmt: skip
    own["evaluate"].add_argument("--output", type=Path, default=Path("evaluation_results"),
                                 help="where the results go (default: evaluation_results)")  # fmt: skip
    folder("monitor", "preprocessed", "preprocessed", "folder that 'preprocess' is filling")
    folder("export", "model", "xception_best.h5", "the trained model")
    folder("export", "output", "exported", "where the exported model goes")
    own["export"].add_argument("--crops", type=Path,
                               help="folder of face crops to check on (default: the faces of the samples)")  # fmt: skip
    own["synthesize"].add_argument("video", type=Path, help="video of real people")
    own["synthesize"].add_argument("output", type=Path, help="the forged video to write (.mp4)")
    own["synthesize"].add_argument("--donor", type=Path, metavar="IMAGE",
                                   help="portrait whose face 'cross_swap' puts on")  # fmt: skip

    for name, command in own.items():
        group = command.add_argument_group("settings")
        for setting in for_command(name):
            extra = {}
            if setting.type is bool:
                extra = {"action": argparse.BooleanOptionalAction}
            else:
                extra = {"metavar": "|".join(setting.choices) or setting.type.__name__.upper()}
            if setting.bare is not None:
                extra |= {"nargs": "?", "const": setting.bare}
            unit = f" {setting.unit}" if setting.unit else ""
            shown = f"default: {setting.default}{unit}" if setting.default != "" else ""
            text = setting.help + (f" ({shown})" if shown and setting.type is not bool else "")
            group.add_argument(setting.option, dest=setting.name, default=None,
                               help=text.replace("%", "%%"), **extra)  # fmt: skip
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns 0 when done, 1 when it could not be done, 2 for wrong usage."""
    args = _parser().parse_args(argv)
    names = [s.name for s in for_command(args.command)]
    try:
        settings = resolve(args.command, {n: getattr(args, n) for n in names})
        return _COMMANDS[args.command][0](args, settings)
    except UnmaskError as error:
        print(f"unmask {args.command}: {error}", file=sys.stderr)
        return 2 if error.is_usage else 1
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("unmask"):
            raise
        print(f"unmask {args.command}: {MissingExtraError(args.command, 'train', error.name)}",
              file=sys.stderr)  # fmt: skip
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
