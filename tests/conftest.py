"""Small real inputs, made at test time."""

from pathlib import Path

import hypothesis
import numpy as np
import pytest
from services import (  # noqa: F401
    postgres,
    postgres_server,
    redis_process,
    redis_server,
    s3,
    s3_server,
)

# Two busy cores make any deadline a coin toss; the same examples in every run make failures real.
hypothesis.settings.register_profile("unmask", deadline=None, derandomize=True, max_examples=40)
hypothesis.settings.load_profile("unmask")

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


@pytest.fixture(scope="session")
def samples() -> Path:
    """The openly licensed clips and portraits of the repository."""
    return SAMPLES


@pytest.fixture(scope="session")
def real_clip() -> Path:
    """Three seconds of one undoctored person."""
    return SAMPLES / "real.mp4"


@pytest.fixture(scope="session")
def fake_clip() -> Path:
    """Three seconds of one synthesised face."""
    return SAMPLES / "fake.mp4"


@pytest.fixture(scope="session")
def real_frames(real_clip) -> list[np.ndarray]:
    """All frames of the real clip: RGB ``uint8`` (288, 360, 3)."""
    from unmask.video import Video

    with Video(real_clip) as video:
        return [frame.image for frame in video.sample(every=1)]


@pytest.fixture(scope="session")
def real_frame(real_frames) -> np.ndarray:
    """The first frame of the real clip."""
    return real_frames[0]


@pytest.fixture(scope="session")
def analyzer():
    """The whole detector with the shipped models and all settings at their defaults."""
    from unmask import Analyzer

    return Analyzer()
