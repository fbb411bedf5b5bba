"""Copying through the terminal: OSC 52, which also reaches a local clipboard over SSH; wrapped for tmux."""

from __future__ import annotations

import base64
import os

LIMIT = 75_000
"""Bytes of text sent: terminals drop longer sequences."""


def osc52(text: str, tmux: bool | None = None) -> tuple[str, bool]:
    """(the sequence that copies `text`, was it cut to LIMIT?)."""
    raw = text.encode()
    cut = len(raw) > LIMIT
    data = base64.b64encode(raw[:LIMIT]).decode()
    sequence = f"\x1b]52;c;{data}\x07"
    if tmux if tmux is not None else bool(os.environ.get("TMUX")):
        doubled = sequence.replace("\x1b", "\x1b\x1b")
        sequence = f"{sequence}\x1bPtmux;{doubled}\x1b\\"
    return sequence, cut
