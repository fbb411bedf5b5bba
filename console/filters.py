"""The filter grammar of `/`, for agents, runs and log lines alike. Pure.

Words separated by spaces must all hold: `regex` (any case), `@state`, and `!` before either for its opposite.
"""

from __future__ import annotations

import re

import msgspec


class Term(msgspec.Struct, frozen=True):
    """One word of a filter."""

    text: str
    inverse: bool = False
    state: bool = False


class Filter:
    """A parsed filter. An empty one lets everything pass."""

    def __init__(self, source: str = "") -> None:
        self.source = source.strip()
        self.terms: list[Term] = []
        self.problem = ""
        """Why a word was taken literally, or empty."""
        self._tests: list[tuple[Term, re.Pattern[str]]] = []
        for word in self.source.split():
            inverse = word.startswith("!") and len(word) > 1
            body = word[1:] if inverse else word
            state = body.startswith("@") and len(body) > 1
            term = Term(body[1:].lower() if state else body, inverse, state)
            self.terms.append(term)
            try:
                pattern = re.compile(term.text, re.IGNORECASE)
            except re.error as error:
                self.problem = f"{term.text!r} is no regular expression ({error}); taken literally"
                pattern = re.compile(re.escape(term.text), re.IGNORECASE)
            self._tests.append((term, pattern))

    def __bool__(self) -> bool:
        return bool(self.terms)

    def matches(self, text: str, state: str = "") -> bool:
        """Does a thing that reads `text` and whose state is `state` pass? `@` matches a state's beginning."""
        for term, pattern in self._tests:
            hit = state.startswith(term.text) if term.state else pattern.search(text) is not None
            if hit is term.inverse:
                return False
        return True

    def hits(self, text: str) -> list[tuple[int, int]]:
        """Spans of `text` that a plain word of the filter matches, for highlighting; sorted, not overlapping."""
        spans = sorted(
            found.span()
            for term, pattern in self._tests
            if not (term.inverse or term.state)
            for found in pattern.finditer(text)
            if found.end() > found.start()
        )
        apart: list[tuple[int, int]] = []
        for start, end in spans:
            if not apart or start >= apart[-1][1]:
                apart.append((start, end))
        return apart
