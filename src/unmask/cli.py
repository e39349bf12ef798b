"""The command line: reads it, runs one of the commands, and says what went wrong."""

import argparse
import errno
import os
import shlex
import signal
import sys
import threading

from unmask.commands import COMMANDS, complain
from unmask.errors import MissingExtraError, UnmaskError
from unmask.settings import Setting, for_command, resolve


def _extra(command: str, package: str | None) -> str:
    """The optional part of Unmask that brings a package which a command misses; '' if none."""
    if package in ("pg8000", "redis", "s3fs"):
        return "cluster"
    if package == "nncf":
        return "int8"
    if command in ("serve", "worker"):
        return "web"
    if command in ("train", "evaluate", "calibrate", "export", "synthesize"):
        return "train"
    return ""


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
    for name, command in COMMANDS.items():
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


def _what_is_kept(args: argparse.Namespace) -> str:
    """What becomes of an interrupted command's work."""
    if hasattr(args, "resume") and getattr(args, "json", "FILE") not in (None, "-"):
        return ": what was finished is kept; go on with --resume"
    goes_on = args.command == "preprocess" or getattr(args, "videos", None)
    return ": what was finished is kept; the same command goes on" if goes_on else ""


def _in_words(error: OSError) -> str:
    if not error.filename or not error.strerror:
        return str(error)
    what_to_do = {
        errno.ENOSPC: "make room there", errno.EACCES: "get the right to it, or name another",
        errno.EPERM: "get the right to it, or name another", errno.EROFS: "name another place",
    }.get(error.errno)  # fmt: skip
    problem = f"{error.filename}: {error.strerror}"
    return f"{problem}; {what_to_do}" if what_to_do else problem


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns 0 when done, 1 when it could not be done, 2 for wrong usage."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, with '>&-'
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    args = _parser().parse_args(argv)
    args.command_line = shlex.join(["unmask", *(sys.argv[1:] if argv is None else argv)])
    names = [s.name for s in for_command(args.command)]
    if hasattr(sys.stdout, "reconfigure"):  # names of files need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    if threading.current_thread() is threading.main_thread():
        # A polite kill ends like Ctrl-C: half a file that was being written is removed.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        settings = resolve(args.command, {n: getattr(args, n) for n in names})
        code = COMMANDS[args.command].run(args, settings)
        sys.stdout.flush()  # here, where a closed pipe or a full disk is told
        return code
    except UnmaskError as error:
        complain(args.command, str(error))
        return 2 if error.is_usage else 1
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("unmask"):
            raise
        extra = _extra(args.command, error.name)
        complain(args.command, str(MissingExtraError(args.command, extra, error.name)))
        return 1
    except BrokenPipeError:
        # Whoever read the output has seen enough ('| head'): what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A full disk, a folder without rights: nobody wants a traceback for that.
        complain(args.command, _in_words(error))
        return 1
    except KeyboardInterrupt:
        print(f"\ninterrupted{_what_is_kept(args)}", file=sys.stderr)
        os._exit(130)  # worker threads of the decoder and runtime must not delay the end


if __name__ == "__main__":
    sys.exit(main())
