"""End dates and successors, on days that the test chooses."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from gateway.models.catalogue import Catalogue, KnownModel

SHIPPED = Catalogue.shipped()


@pytest.mark.parametrize(
    ("model", "last_day", "first_day", "successor"),
    [
        ("anthropic/claude-sonnet-4-5", date(2026, 11, 29), date(2026, 11, 30), "anthropic/claude-sonnet-5-5"),
        ("google/gemini-2.5-pro", date(2026, 11, 30), date(2026, 12, 1), "google/gemini-3.8-flash"),
    ],
)
def test_from_its_end_date_on_the_successor_answers(
    model: str, last_day: date, first_day: date, successor: str
) -> None:
    before, after = SHIPPED.standing(model, last_day), SHIPPED.standing(model, first_day)
    assert (before.model, before.retires, before.successor) == (model, first_day, successor)
    assert (after.model, after.retires, after.successor) == (successor, first_day, successor)


def test_the_shipped_agents_models_live_on() -> None:
    for model in ("anthropic/claude-opus-4-6", "anthropic/claude-sonnet-5-5", "google/gemini-3.8-flash"):
        standing = SHIPPED.standing(model, date(2030, 1, 1))
        assert (standing.model, standing.retires) == (model, None)


def test_an_unknown_id_stands_for_itself() -> None:
    standing = SHIPPED.standing("anthropic/qwen3:8b", date(2030, 1, 1))
    assert (standing.model, standing.retires, standing.successor) == ("anthropic/qwen3:8b", None, None)


def test_every_retiring_model_leads_to_one_that_lives() -> None:
    far = date(2100, 1, 1)
    for model in SHIPPED.ids:
        answers = SHIPPED.find(SHIPPED.standing(model, far).model)
        assert answers is not None, model
        assert answers.retires is None, model


def test_a_ring_of_successors_ends() -> None:
    gone = date(2020, 1, 1)
    ring = Catalogue(
        {
            "x/a": KnownModel(window=1, retires=gone, successor="x/b"),
            "x/b": KnownModel(window=1, retires=gone, successor="x/a"),
        }
    )
    assert ring.standing("x/a", date(2026, 1, 1)).model in ("x/a", "x/b")


def test_what_has_ended_is_not_offered() -> None:
    assert "google/gemini-2.5-pro" in SHIPPED.choices(date(2026, 11, 30))
    assert "google/gemini-2.5-pro" not in SHIPPED.choices(date(2026, 12, 1))


def test_the_sdk_agrees_on_what_ends_and_when() -> None:
    """The SDK's own table, read as text: importing it would cost this process three seconds."""
    import ast
    import importlib.util
    from email.utils import parsedate_to_datetime

    spec = importlib.util.find_spec("anthropic")
    assert spec is not None
    assert spec.submodule_search_locations
    source = (Path(spec.submodule_search_locations[0]) / "resources/messages/messages.py").read_text()
    start = source.index("DEPRECATED_MODELS = {")
    table = ast.literal_eval(source[start + len("DEPRECATED_MODELS = ") : source.index("}", start) + 1])
    for id, said in table.items():
        known = SHIPPED.find(f"anthropic/{id}")
        if known is not None:
            month, day, year = said.replace(",", "").split()
            told = parsedate_to_datetime(f"{day.rstrip('thsndr')} {month[:3]} {year} 00:00:00 +0000").date()
            assert known.retires == told, id
        else:
            assert id.startswith(("claude-1", "claude-2", "claude-3", "claude-instant")), id
