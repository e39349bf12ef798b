"""How many processors there are for this process, which in a container may be few of many."""

import os


def processors(threads: int = 0) -> int:
    """How many processors to keep busy: ``threads``, or, for 0, all that this process may use."""
    if threads:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
