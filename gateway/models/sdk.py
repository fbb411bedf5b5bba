"""Importing a model SDK beside a running event loop, which goes on serving meanwhile."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
import threading
from collections.abc import Callable
from typing import Any

_ONE_AT_A_TIME = threading.Lock()
"""The garbage collector's switch belongs to the process: two imports must not turn it back on for each other."""


async def load_sdk(name: str, rehearse: Callable[[Any], None] | None = None) -> Any:
    """Import the module `name` in a thread; costs up to 2.5 CPU-seconds the first time, nothing after.

    `rehearse(module)` runs in that thread after the first import, for what the module builds on first use.
    """
    return await asyncio.to_thread(_load, name, rehearse)


def _load(name: str, rehearse: Callable[[Any], None] | None) -> Any:
    """Import with the collector off, then put what came out of its sight.

    An SDK is hundreds of thousands of objects that live as long as the process. Collecting over them stops every
    thread for up to 100 ms at a time, during the import and ever after; without, the loop waits 20 ms at worst.
    """
    with _ONE_AT_A_TIME:
        if name in sys.modules:
            return sys.modules[name]
        collecting = gc.isenabled()
        gc.disable()
        try:
            module = importlib.import_module(name)
            if rehearse is not None:
                rehearse(module)
            gc.freeze()
        finally:
            if collecting:
                gc.enable()
    return module
