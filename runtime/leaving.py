"""The end of a process, which no thread may hold up that is stuck in a call of somebody else's."""

from __future__ import annotations

import os
import threading

LEAVE_SECONDS = 2.0
"""What threads still do may take so long."""


def leave(code: int, seconds: float = LEAVE_SECONDS) -> None:
    """See to it that this process ends with `code` within `seconds`: everything that must be written is written.

    An interpreter waits for the threads of its executors before it ends, and a thread cannot be interrupted.
    """
    ending = threading.Timer(seconds, os._exit, (code,))
    ending.daemon = True
    ending.start()
