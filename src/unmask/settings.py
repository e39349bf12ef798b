"""One table of settings. It drives the command line, the environment, the docs and the checks.

A value is looked for on the command line (``--max-frames 32``), then in the environment
(``UNMASK_MAX_FRAMES=32``), then in a configuration file, where the command has one, then here.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from unmask.errors import SettingError


@dataclass(frozen=True)
class Setting:
    """One knob: name, default (which gives the type), range, unit, the commands that have it."""

    name: str
    default: Any
    help: str
    commands: tuple[str, ...]
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    bare: Any = None
    """The value when the option is given without one; None where it needs one."""

    @property
    def type(self) -> type:
        """The type of its values, which is the default's."""
        return type(self.default)

    @property
    def option(self) -> str:
        """The command-line option, e.g. ``--max-frames``."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable, e.g. ``UNMASK_MAX_FRAMES``."""
        return "UNMASK_" + self.name.upper()

    @property
    def shown_default(self) -> str:
        """The default for people, e.g. ``640 pixels`` or ``no``."""
        if self.type is bool:
            return "yes" if self.default else "no"
        return f"{self.default} {self.unit}".strip()

    def check(self, value: Any) -> Any:
        """Return ``value`` as this setting's type. Raises SettingError when it does not fit."""
        if self.type is bool and isinstance(value, str):
            if value.lower() not in ("1", "0", "true", "false", "yes", "no", "on", "off"):
                raise SettingError(f"{self.option} takes yes or no, not {value!r}")
            value = value.lower() in ("1", "true", "yes", "on")
        is_cut = self.type is int and isinstance(value, float) and not value.is_integer()
        is_odd = (self.type is int and isinstance(value, bool)) or isinstance(value, list | dict)
        try:
            if is_cut or is_odd:
                raise ValueError
            value = self.type(value)
        except (TypeError, ValueError, OverflowError):
            kind = {int: "a whole number", float: "a number"}.get(self.type, self.type.__name__)
            raise SettingError(f"{self.option} takes {kind}, not {value!r}") from None
        if self.choices and value not in self.choices:
            raise SettingError(
                f"{self.option} takes one of {', '.join(self.choices)}, not {value!r}"
            )
        too_low = self.low is not None and not value >= self.low
        too_high = self.high is not None and not value <= self.high
        if too_low or too_high:
            if None in (self.low, self.high):
                bounds = f"at least {self.low}" if self.high is None else f"at most {self.high}"
            else:
                bounds = f"between {self.low} and {self.high}"
            raise SettingError(f"{self.option} must be {bounds}, not {value}")
        return value


FAMILY_SHARES = {
    "self_blend": 0.3, "decoder_look": 0.25, "cross_swap": 0.15, "mouth_edit": 0.15,
    "resynthesis": 0.15,
}  # fmt: skip
"""The families of synthesised fakes and how often each is taken."""

_WEB = ("serve", "worker")
_VERDICTS = ("detect", "evaluate", "compare", *_WEB)
_ANALYSIS = (*_VERDICTS, "calibrate")
_FACES = (*_ANALYSIS, "preprocess")

# fmt: off
SETTINGS: tuple[Setting, ...] = (
    # Which frames are looked at.
    Setting("every", 15,
            "judge every Nth frame, and more of a video with under 7.5 frames a second", _FACES,
            low=1, unit="frames"),
    Setting("max_frames", 0, "at most this many frames, evenly spaced over the video (0: no cap)",
            _FACES, low=0, unit="frames"),
    Setting("sampling", "exact", "'exact': just these frames; 'fast' looks at the first two fifths "
            "of what lies between two keyframes, 'keyframes' at these alone, and both take frames "
            "nearby", _FACES, choices=("exact", "fast", "keyframes")),
    # Which faces are found in them.
    Setting("detection_size", 640, "longer side of the picture in which faces are looked for",
            _FACES, low=64, high=4096, unit="pixels"),
    Setting("detection_score", 0.7, "how sure the face detector must be", _FACES, low=0.05, high=1),
    Setting("min_face", 30, "ignore faces whose shorter side is smaller than this in the source",
            (*_FACES, "split"), low=1, unit="pixels"),
    # How they are judged.
    Setting("model", "", "the model's .xml file (default: 'shipped', which is Unmask's own)",
            ("detect", *_WEB)),
    Setting("calibration", "",
            "the file that 'unmask calibrate' made for this model (default: none)",
            ("detect", "evaluate", *_WEB)),
    Setting("threshold", 0.5, "probability of fake from which the verdict is 'fake'", _VERDICTS,
            low=0, high=1),
    Setting("uncertain", 0.1, "closer to the threshold than this, the verdict is 'uncertain'",
            _VERDICTS, low=0, high=0.5),
    Setting("aggregate", "person",
            "'person': as fake as the most fake person; 'mean': over all faces", _ANALYSIS,
            choices=("person", "mean")),
    Setting("min_track_frames", 3, "a person seen in fewer frames cannot decide a longer video",
            _ANALYSIS, low=1, unit="frames"),
    Setting("robustness", False, "with --videos: judge every video again after compression, "
            "halving and blur, and report how the verdicts hold", ("evaluate",)),
    Setting("record", "", "with --videos: write the figures into the model's card, so that reports "
            "can state them; the text is the set's name (default: do not)", ("evaluate",)),
    # What the file says of itself.
    Setting("provenance", False, "also tell what the file's Content Credentials and tags say of "
            "where it comes from, which is never part of the score; --html always does",
            ("detect",)),
    Setting("trust_list", "", "PEM file with the certificates of those you trust to sign Content "
            "Credentials; 'detect' then tells of these as with --provenance", ("detect", *_WEB)),
    # What the machine gives.
    Setting("threads", 0, "processor threads (0: all)",
            ("detect", "evaluate", "compare", "calibrate"), low=0, high=256),
    Setting("precision", "auto", "'auto' takes bfloat16 where the processor has it, and finds "
            "faces in eight bits; 'f32' is the same on every machine", _ANALYSIS,
            choices=("auto", "f32")),
    Setting("device", "cpu", "where faces are judged: the ordinary processor, or an NVIDIA one "
            "(extra 'cuda')", ("detect", "evaluate", "compare", "calibrate"),
            choices=("cpu", "cuda")),
    # From videos to face crops.
    Setting("manifest", "", "CSV with path,label[,group,split,method,dataset] instead of a folder",
            ("preprocess",)),
    Setting("size", 256, "side of a face crop", ("preprocess", "train"), low=71, high=1024,
            unit="pixels"),
    Setting("margin", 1.3,
            "side of the square crop over the longer side of the face; 'detect' always cuts at 1.3",
            ("preprocess",), low=1, high=3),
    Setting("balance", "real", "'real': keep as many fake videos as real ones; 'none': keep all",
            ("preprocess",), choices=("real", "none")),
    Setting("augment", 0, "augmented copies written beside each crop", ("preprocess",), low=0,
            high=20),
    Setting("workers", 0, "processes that work at the same time (0: one a processor)",
            ("preprocess", *_WEB), low=0, high=256),
    Setting("seed", 0, "makes every random choice again",
            ("preprocess", "split", "train", "evaluate", "calibrate", "synthesize"), low=0),
    # How copies of crops are altered, on disk with --augment and on the fly in training.
    Setting("rotation", 15.0, "turn altered copies by up to this, either way",
            ("preprocess", "train"), low=0, high=180, unit="degrees"),
    Setting("shift", 0.1, "shift altered copies by up to this share of their side",
            ("preprocess", "train"), low=0, high=0.5),
    Setting("zoom", 0.2, "enlarge or shrink altered copies by up to this share",
            ("preprocess", "train"), low=0, high=0.9),
    Setting("mirror", True, "mirror every second altered copy", ("preprocess", "train")),
    # From crops to a split.
    Setting("min_blur", 20.0, "drop crops whose Laplacian variance, at 256 pixels, is below this",
            ("split",), low=0),
    Setting("ratios", "70/15/15", "shares of train, val and test in percent", ("split",)),
    # From a split to weights.
    Setting("init", "imagenet", "where the weights start: imagenet, random, or an .h5 file",
            ("train",)),
    Setting("head", "pool", "what judges: 'pool' averages the last features; 'moments' looks at "
            "textures half way up, is fitted in one go on a frozen base, and carries further where "
            "real fakes are few", ("train",), choices=("pool", "moments")),
    Setting("ridge", 0.3, "with --head moments: how strongly its weights are held small",
            ("train",), low=1e-6, high=1e6),
    Setting("local_steps", 0, "with --head moments: steps in which a branch beside it then learns "
            "to see where a part of a face was forged, from synthesised fakes (0: no branch)",
            ("train",), low=0),
    Setting("trainable_layers", "20", "how many of the base's last layers learn: a number or 'all'",
            ("train",)),
    Setting("batch", 16, "crops in a batch", ("train",), low=2, high=4096),
    Setting("accumulate", 1, "batches whose gradients are added up before a step", ("train",),
            low=1, high=1024),
    Setting("epochs", 50, "passes over the training crops at most", ("train",), low=1),
    Setting("steps_per_epoch", 0, "batches that count as an epoch (0: all crops once)", ("train",),
            low=0),
    Setting("optimizer", "adam", "the optimizer", ("train",), choices=("adam", "adamw")),
    Setting("learning_rate", 1e-4, "the optimizer's learning rate", ("train",), low=0, high=1),
    Setting("schedule", "plateau", "'plateau': x0.3 when validation loss stalls; 'cosine': warm "
            "up, then fall to zero over all epochs", ("train",), choices=("plateau", "cosine")),
    Setting("plateau_patience", 2, "epochs without a better validation loss before learning slows",
            ("train",), low=1),
    Setting("plateau_factor", 0.3, "what the learning rate is multiplied by then", ("train",),
            low=0.01, high=1),
    Setting("weight_decay", 1e-4, "how fast AdamW lets weights decay", ("train",), low=0, high=1),
    Setting("dropout", 0.5, "dropout before the last layer", ("train",), low=0, high=0.95),
    Setting("label_smoothing", 0.0, "how far labels are pulled towards 0.5", ("train",), low=0,
            high=0.5),
    Setting("average", 0.0, "decay of a running average of the weights, which is what is validated "
            "and saved (0: none)", ("train",), low=0, high=0.99999),
    Setting("patience", 5,
            "epochs without a better validation loss before stopping (0: never stop)", ("train",),
            low=0),
    Setting("select", "accuracy",
            "which epoch is kept: best validation accuracy, best video-level AUC, or the last",
            ("train",), choices=("accuracy", "auc", "last")),
    Setting("mixed_precision", "auto",
            "'auto': float16 on a GPU, bfloat16 on processors that have it", ("train",),
            choices=("auto", "bfloat16", "float16", "off")),
    Setting("pseudo_fakes", 0.0, "share of each batch's fakes that is synthesised from the real "
            "crops (1: all, which is also what the bare option means)", ("train",), low=0, high=1,
            bare=1.0),
    Setting("families", ",".join(f"{family}={share:g}" for family, share in FAMILY_SHARES.items()),
            "the families of synthesised fakes and how often each is taken", ("train",)),
    Setting("degrade", 0.0, "how hard crops are compressed, rescaled, blurred and recoloured on "
            "the fly, real and fake alike (0: not at all; the bare option means 1)", ("train",),
            low=0, high=1, bare=1.0),
    Setting("train_crop", 0,
            "train on random cut-outs of this side (0: whole crops): cheaper steps", ("train",),
            low=0, high=1024, unit="pixels"),
    Setting("resume", False, "go on where an interrupted run stopped", ("train",)),
    # From weights to what is shipped.
    Setting("false_positives", 0.05,
            "share of real videos that may be called fake at 0.5 when calibrating",
            ("export", "calibrate"), low=0, high=0.5),
    # Forging on purpose.
    Setting("family", "cross_swap", "how faces are forged", ("synthesize",),
            choices=tuple(FAMILY_SHARES)),
    # Watching.
    Setting("interval", 60.0, "time between two refreshes", ("monitor",), low=0.2, unit="seconds"),
    Setting("once", False, "print one picture and stop", ("monitor",)),
    # The web application.
    Setting("config", "", "TOML file with settings by their names, e.g. port = 8080", _WEB),
    Setting("host", "127.0.0.1",
            "address to listen on; any but this machine's own needs --access-token", ("serve",)),
    Setting("port", 5000, "port to listen on", ("serve",), low=0, high=65535),
    Setting("data_folder", "unmask_data", "where uploads, results and the database are kept", _WEB),
    Setting("judge_here", True,
            "analyse on this machine too; else 'unmask worker' does it elsewhere", ("serve",)),
    Setting("access_token", "",
            "secret that people and programs have to give, at least 16 characters (default: none)",
            ("serve",)),
    Setting("allowed_origins", "",
            "other web pages that may use the API, e.g. https://news.example; several with commas",
            ("serve",)),
    Setting("trusted_proxy", "",
            "address of the reverse proxy whose X-Forwarded-* headers are believed (default: none)",
            ("serve",)),
    Setting("upload_limit", 500, "largest upload", _WEB, low=1, unit="MB"),
    Setting("longest_video", 30.0, "longer videos are refused", _WEB, low=0.01, unit="minutes"),
    Setting("time_limit", 60.0, "an analysis that takes longer is stopped", _WEB, low=0.01,
            unit="minutes"),
    Setting("queue_limit", 100, "uploads are refused while so many wait to be analysed", ("serve",),
            low=1),
    Setting("upload_rate", 30, "uploads that one client may start", ("serve",), low=1,
            unit="a minute"),
    Setting("retention", 24.0, "uploads and results are deleted after this", ("serve",), low=0.001,
            unit="hours"),
    Setting("web_addresses", False, "also take the web address of a video, and fetch it", _WEB),
    Setting("database", "", "SQLAlchemy's address of a PostgreSQL, postgresql+pg8000://... "
            "(default: SQLite in the data folder)", _WEB),
    Setting("queue", "", "address of a Redis that hands jobs to workers, redis://... (default: "
            "SQLite in the data folder)", _WEB),
    Setting("storage", "", "where files are kept: a shared folder, or s3://BUCKET/FOLDER (default: "
            "the data folder)", _WEB),
)
# fmt: on


VIDEO_SETTINGS = (
    "every", "max_frames", "sampling", "detection_size", "detection_score", "min_face", "aggregate",
    "min_track_frames",
)  # fmt: skip
"""Of these, which frames and faces of a video are judged and how they are taken together."""


def for_command(command: str) -> list[Setting]:
    """The settings that ``unmask COMMAND`` has, in the table's order."""
    return [s for s in SETTINGS if command in s.commands]


def changed(command: str, values: Mapping[str, Any]) -> list[Setting]:
    """The settings of a command that are not by default among ``values``, in the table's order."""
    return [s for s in for_command(command) if values.get(s.name, s.default) != s.default]


def resolve(command: str, given: Mapping[str, Any] | None = None) -> SimpleNamespace:
    """A command's settings: as ``given``, else environment, configuration file, default.

    Raises SettingError for a name the command does not have, a value that does not fit, or a
    configuration file that cannot be read.
    """
    given = {k: v for k, v in (given or {}).items() if v is not None}
    table = {s.name: s for s in for_command(command)}
    for name in given:
        if name not in table:
            raise SettingError(f"'{command}' has no setting {name!r}; it has {', '.join(table)}")
    environment = {
        s.name: os.environ[s.variable]
        for s in table.values()
        if os.environ.get(s.variable) and s.name not in given  # an empty one counts as unset
    }
    values = environment | given
    if values.get("config"):
        values = _configured(Path(values["config"]), table) | values
    settings = SimpleNamespace()
    for name, setting in table.items():
        try:
            setattr(settings, name, setting.check(values.get(name, setting.default)))
        except SettingError as error:
            if name in environment:
                raise SettingError(f"{error} ({setting.variable} is set so)") from None
            raise
    return settings


def shared(settings: SimpleNamespace, command: str) -> dict[str, Any]:
    """Those of one command's settings that another has as well, for that one."""
    values = vars(settings)
    return {s.name: values[s.name] for s in for_command(command) if s.name in values}


def _configured(file: Path, table: Mapping[str, Setting]) -> dict[str, Any]:
    """What a configuration file says of a command's settings.

    One file may serve all commands that take one. Raises SettingError for what none of them has.
    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"the configuration file {file} cannot be read: {error}") from None
    commands = next(s.commands for s in SETTINGS if s.name == "config")
    known = {s.name for command in commands for s in for_command(command)}
    for name in values:
        if name not in known:
            raise SettingError(
                f"{file} sets {name!r}, which is no setting of {' or '.join(commands)}: see "
                "docs/settings.md"
            )
    return {name: value for name, value in values.items() if name in table}


def table() -> str:
    """The settings as the Markdown table of ``docs/settings.md``."""
    lines = [
        "| option | environment | default | commands | what it does |",
        "|---|---|---|---|---|",
    ]
    for s in SETTINGS:
        choices = f" ({', '.join(s.choices)})" if s.choices else ""
        lines.append(
            f"| `{s.option}` | `{s.variable}` | {s.shown_default or 'none'} "
            f"| {', '.join(s.commands)} | {s.help}{choices} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print("# Settings\n")
    print("Every setting of every command, made from the table in `src/unmask/settings.py` by")
    print("`python -m unmask.settings > docs/settings.md`. The command line wins over the")
    print(
        "environment, which wins over the configuration file (`serve` and `worker` have one), which"
    )
    print("wins over the default.\n")
    print(table())
