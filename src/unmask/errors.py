"""Typed errors. Each message says what is wrong and what to do next."""


class UnmaskError(Exception):
    """Base of every error that Unmask raises on purpose."""

    is_usage = False  # True where the caller asked for something that makes no sense


class UsageError(UnmaskError):
    """A path that does not exist, or arguments that do not go together."""

    is_usage = True


class UnreadableError(UnmaskError):
    """A file that is not a video or image, or that decodes to nothing."""


class SettingError(UnmaskError):
    """A setting that is unknown, of the wrong type or out of range."""

    is_usage = True


class DatasetError(UnmaskError):
    """A dataset, manifest, folder of crops or of a training run that cannot be used as it is."""


class ModelError(UnmaskError):
    """Weights that are missing, damaged or of a kind that cannot be run."""


def installation(extra: str) -> str:
    """The command that installs Unmask with an optional part; it is given in Unmask's folder."""
    return f"pip install '.[{extra}]'" if extra else "pip install ."


class MissingExtraError(UnmaskError):
    """A command misses a package of an optional part of Unmask or, with '', of Unmask itself."""

    def __init__(self, command: str, extra: str, missing: str):
        super().__init__(
            f"'unmask {command}' needs the package {missing}: install it with "
            f"{installation(extra)} in Unmask's folder"
        )
