"""What is known of models: context windows, output limits, end dates and successors; the data is `catalogue.toml`."""

from __future__ import annotations

import datetime
import functools
from pathlib import Path

import msgspec

from protocols.decoding import decode_toml


class KnownModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model of the catalogue; the fields are explained at the head of `catalogue.toml`."""

    window: int
    max_output: int | None = None
    thinking: str = ""
    least_thinking: str = ""
    retires: datetime.date | None = None
    successor: str | None = None
    note: str = ""
    sees: bool = True
    picker: bool = True


class Standing(msgspec.Struct, frozen=True):
    """Which model really answers for an id on a day, and why."""

    model: str
    """Itself, or the successor that answers in its place."""
    retires: datetime.date | None = None
    """The end date of the id asked about."""
    successor: str | None = None
    """Who follows it, now or from that day."""


class Catalogue:
    """Looked up by `provider/model`; an id that is not in it is as valid as one that is."""

    def __init__(self, known: dict[str, KnownModel]) -> None:
        self._known = known

    @classmethod
    @functools.cache
    def shipped(cls) -> Catalogue:
        path = Path(__file__).with_name("catalogue.toml")
        tables = decode_toml(path.read_text(), dict[str, dict[str, KnownModel]], str(path))
        return cls({f"{provider}/{id}": model for provider, models in tables.items() for id, model in models.items()})

    @property
    def ids(self) -> list[str]:
        return list(self._known)

    def find(self, model: str) -> KnownModel | None:
        return self._known.get(model)

    def choices(self, today: datetime.date) -> list[str]:
        """Models to offer on that day, in the catalogue's order."""
        return [id for id, known in self._known.items() if known.picker and not _over(known, today)]

    def standing(self, model: str, today: datetime.date) -> Standing:
        """Who answers for `model` on that day: from its end date on, its successor (or that one's)."""
        asked = self.find(model)
        if asked is None:
            return Standing(model)
        answers = model
        known: KnownModel | None = asked
        seen = {model}
        while known and _over(known, today) and known.successor and known.successor not in seen:
            answers = known.successor
            seen.add(answers)
            known = self.find(answers)
        follows = answers if answers != model else asked.successor
        return Standing(answers, asked.retires, follows if asked.retires else None)


def _over(known: KnownModel, today: datetime.date) -> bool:
    return known.retires is not None and today >= known.retires
