"""Which tool calls are allowed, asked about or denied: by tool, and by a pattern on what the call is about.

An entry of `[tools] allow`, `ask` or `deny` is a tool's name, or `name(pattern)` with `*` and `?` matched against the
call's subject (a command line, a path, a URL). From strongest to weakest: a matching `deny`, an `allow` with a
pattern, an `ask`, a bare `allow`; a tool that is named only with patterns asks about everything else.

An `allow` errs on the side of asking. A `deny` or an `ask` by pattern on a command line catches the usual ways of
writing a command and not all there are: what must not be run is left out of `allow`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

_ENTRY = re.compile(r"^(?P<tool>[\w-]+|\*)(?:\((?P<pattern>.*)\))?$", re.DOTALL)
_SHELL = re.compile(r"[;&|<>`\n\r]|\$[({]")
"""What makes one command line more than the one command that it begins with."""
_SEGMENTS = re.compile(r"[;&|\n\r]+|\$\(|`|\(|\)")
_QUOTES = re.compile(r"['\"\\]")
_BEFORE = re.compile(
    r"^(?:(?:[{!]|if|then|elif|else|while|until|do|time|env|exec|command|builtin|nohup|\w+=\S*"
    r"|(?:/bin/|/usr/bin/)?(?:ba|da)?sh -c)\s+)+"
)
"""What may stand before a command's own name."""
COMMAND_TOOLS = frozenset({"exec"})
"""Tools whose subject is a shell's command line."""


class Decision(StrEnum):
    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


class Verdict(msgspec.Struct, frozen=True):
    """What to do with a call, and by which entry."""

    decision: Decision
    rule: str
    """The entry, in the words of the configuration."""


class Rule(msgspec.Struct, frozen=True):
    tool: str
    pattern: str | None

    def names(self, tool: str) -> bool:
        return self.tool in (tool, "*")

    def __str__(self) -> str:
        return self.tool if self.pattern is None else f"{self.tool}({self.pattern})"


def parse_rule(text: str) -> Rule:
    """An entry of the configuration; raises ValueError."""
    found = _ENTRY.match(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a tool rule: write a tool's name, or name(pattern), as in `exec(git log*)`")
    return Rule(found["tool"], found["pattern"])


class Permissions:
    """The rules of one agent."""

    def __init__(self, allow: Iterable[str], ask: Iterable[str], deny: Iterable[str]) -> None:
        """Raises ValueError for an entry that is no rule."""
        self._allow = [parse_rule(text) for text in allow]
        self._ask = [parse_rule(text) for text in ask]
        self._deny = [parse_rule(text) for text in deny]

    def has(self, tool: str) -> bool:
        """May the agent know of this tool at all?"""
        if any(rule.names(tool) and rule.pattern is None for rule in self._deny):
            return False
        return any(rule.names(tool) for rule in (*self._allow, *self._ask))

    def decide(self, tool: str, subject: str) -> Verdict:
        for rule in self._deny:
            if rule.names(tool) and (rule.pattern is None or _touches(tool, subject, rule.pattern)):
                return Verdict(Decision.DENY, f"deny {rule}")
        for rule in self._allow:
            if rule.names(tool) and rule.pattern is not None and _is_only(tool, subject, rule.pattern):
                return Verdict(Decision.ALLOW, f"allow {rule}")
        for rule in self._ask:
            if rule.names(tool) and (rule.pattern is None or _touches(tool, subject, rule.pattern)):
                return Verdict(Decision.ASK, f'[tools] ask has "{rule}"')
        for rule in self._allow:
            if rule.names(tool) and rule.pattern is None:
                return Verdict(Decision.ALLOW, f"allow {rule}")
        if self.has(tool):
            return Verdict(Decision.ASK, f"[tools] allow has {tool} for other things only")
        return Verdict(Decision.DENY, f"{tool} is not among [tools] allow or ask")


def _is_only(tool: str, subject: str, pattern: str) -> bool:
    """Does the pattern cover the whole call? A command line that chains, redirects or substitutes is covered only by a
    pattern that does exactly the same: no `*` stands for a second command."""
    if tool in COMMAND_TOOLS and _SHELL.findall(subject.strip()) != _SHELL.findall(pattern):
        return False
    return fnmatchcase(subject.strip(), pattern)


def _touches(tool: str, subject: str, pattern: str) -> bool:
    """Does the pattern match the call, or any of the commands in its command line?"""
    if tool not in COMMAND_TOOLS:
        return fnmatchcase(subject.strip(), pattern)
    parts = [subject, *_SEGMENTS.split(subject)]
    return any(fnmatchcase(form, pattern) for part in parts for form in _forms(part.strip()))


def _forms(command: str) -> set[str]:
    """Ways to write one command: as it stands, without quotes, what stands before its name, and its path."""
    plain = _QUOTES.sub("", command)
    bare = _BEFORE.sub("", plain)
    return {command, plain, bare, re.sub(r"^\S*/", "", bare)}
