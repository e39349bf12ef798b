"""Unmask tells whether the faces in a video are real or deepfakes.

>>> import unmask
>>> report = unmask.analyze("clip.mp4")  # doctest: +SKIP
>>> report.verdict, report.probability_fake  # doctest: +SKIP
('fake', 0.93)
"""

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unmask.analyzer import Analyzer, analyze
    from unmask.report import Report

__all__ = ["Analyzer", "Report", "analyze"]
__version__ = version("unmask")

# OpenVINO and NNCF tell Google Analytics that they are used, unless they lack the package for that.
sys.modules.setdefault("openvino_telemetry", None)


def __getattr__(name: str):
    # Loading the decoder and the runtime takes half a second, so it waits until it is needed.
    if name in ("Analyzer", "analyze"):
        from unmask import analyzer

        return getattr(analyzer, name)
    if name == "Report":
        from unmask.report import Report

        return Report
    raise AttributeError(f"module 'unmask' has no attribute {name!r}")
