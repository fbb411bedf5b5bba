"""Delivery targets: always `provider:kind:id`, parsed once at the edge and trusted inside.

A bare id is never a target: the peer system's "Ambiguous recipient" came from one overwriting a typed one.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from protocols.errors import AtomizerError

Provider = Literal["discord", "slack", "agent"]
Kind = Literal["user", "channel", "thread", "run"]

KINDS: dict[str, tuple[str, ...]] = {
    "discord": ("user", "channel"),
    "slack": ("user", "channel", "thread"),
    "agent": ("run",),
}
_ID: dict[str, re.Pattern[str]] = {
    "discord": re.compile(r"[0-9]{15,21}"),
    "slack": re.compile(r"[A-Z][A-Z0-9]{5,20}(/[0-9]+\.[0-9]+)?"),
    "agent": re.compile(r"[a-z][a-z0-9-]*/run-[0-9a-z]+"),
}


class TargetError(AtomizerError):
    """Text that is no target; the message shows the form."""


class Target(msgspec.Struct, frozen=True):
    """Where a message goes. `str(target)` is the wire form; `parse_target` reads it back."""

    provider: str
    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.provider}:{self.kind}:{self.id}"


def parse_target(text: str) -> Target:
    """`discord:user:<id>` and the like as a Target; raises TargetError."""
    parts = text.split(":", 2)
    if len(parts) != 3:
        raise TargetError(
            f"{text!r} is not a target: write provider:kind:id, for example discord:channel:123456789012345678"
        )
    provider, kind, ident = parts
    if provider not in KINDS:
        raise TargetError(f"{text!r}: unknown provider {provider!r}; known: {', '.join(KINDS)}")
    if kind not in KINDS[provider]:
        raise TargetError(f"{text!r}: {provider} has no kind {kind!r}; known: {', '.join(KINDS[provider])}")
    if not _ID[provider].fullmatch(ident):
        raise TargetError(f"{text!r}: {ident!r} is not a {provider} {kind} id")
    return Target(provider, kind, ident)
