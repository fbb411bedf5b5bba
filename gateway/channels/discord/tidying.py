"""Giving back what importing the library took and no longer needs."""

from __future__ import annotations

import ctypes
import typing


def tidy(_: object) -> None:
    """The records of overloads, which only a type checker reads; then the C library's free pages, where it can."""
    typing.clear_overloads()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
