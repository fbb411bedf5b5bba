"""Who may delegate to whom. The receiver decides, from the caller's token; nothing in a body can change it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from protocols.errors import AtomizerError

OPERATOR = "operator"
VIEWER = "viewer"

DEFAULT_AUTHORITY: dict[str, list[str]] = {
    "manager": ["*"],
    "tech-lead": ["*", "!manager"],
    "optimizer": ["study-builder", "nx-expert", "post-processor"],
}
"""The shipped rules: an agent that is not listed delegates to nobody."""


class AuthorityError(AtomizerError):
    """A rule that names nobody or cannot be read."""


class Verdict(msgspec.Struct, frozen=True):
    """May this delegation be made, and by which rule."""

    allowed: bool
    rule: str


class Authority:
    """The delegation rules of one cluster.

    A rule is a list: names, `*` for everybody, `!name` for an exception. Exceptions win. Nobody delegates to itself.
    """

    def __init__(self, rules: Mapping[str, list[str]], known: Iterable[str] | None = None) -> None:
        """Raises AuthorityError if `known` is given and a rule names an agent outside it."""
        self._rules = {name: list(entries) for name, entries in rules.items()}
        if known is not None:
            names = set(known)
            for name, entries in self._rules.items():
                for word in [name, *(e.removeprefix("!") for e in entries if e != "*")]:
                    if word not in names:
                        raise AuthorityError(f"authority of {name} names {word!r}, which is no agent of this cluster")

    def verdict(self, caller: str, receiver: str) -> Verdict:
        """May `caller` (an agent, `operator` or `viewer`) give `receiver` work?"""
        if caller == OPERATOR:
            return Verdict(True, "the operator may delegate to every agent")
        if caller == VIEWER:
            return Verdict(False, "a viewer reads and never writes")
        if caller == receiver:
            return Verdict(False, "no agent delegates to itself")
        entries = self._rules.get(caller, [])
        shown = f"authority of {caller}: {', '.join(entries) or 'nobody'}"
        if f"!{receiver}" in entries:
            return Verdict(False, f"{shown} (`!{receiver}` forbids {receiver})")
        if "*" in entries or receiver in entries:
            return Verdict(True, shown)
        return Verdict(False, f"{shown}; {receiver} is not among them. Ask the manager or the tech-lead to delegate")

    def reachable(self, caller: str, agents: Iterable[str]) -> list[str]:
        """The agents among `agents` that `caller` may delegate to, in the order given."""
        return [name for name in agents if self.verdict(caller, name).allowed]
