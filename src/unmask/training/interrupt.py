"""Stop between two steps, not in the middle of one."""

import signal
import threading


class StopSignals:
    """Within the block, Ctrl-C and a polite kill only set ``asked``; the loop stops when it can."""

    asked = False

    def __enter__(self):
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, *_):
        self.asked = True

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)
