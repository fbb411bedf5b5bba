"""What was said lately: bounded whatever a busy server says, and never half of what it claims to be."""

from __future__ import annotations

import pytest

from gateway.channels import recent as recent_module
from gateway.channels.channel import Author, Heard, Place
from gateway.channels.recent import Recent
from protocols.targets import Target
from tests.gateway.channels.listening import ANN, ROOM


def heard(channel: int, number: int, text: str = "hello") -> Heard:
    place = Place(Target("discord", "channel", f"{300000000000000000 + channel}"), "channel")
    return Heard(str(10**17 + number), place, Author(ANN, "Ann"), text, 0.0)


def test_a_busy_server_takes_no_more_than_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_module, "ROOM", 20_000)
    recent = Recent()
    for number in range(1000):
        recent.add(heard(number % 50, number, "x" * 300))
    kept = sum(len(said) for said in recent._channels.values())
    assert 10 <= kept <= 20
    assert recent._taken == sum(1000 + 300 for _ in range(kept))


def test_the_quietest_channel_is_forgotten_and_not_complete_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_module, "ROOM", 3_000)
    recent = Recent()
    quiet, loud = heard(1, 0), heard(2, 0)
    recent.fill(quiet.place.target, [quiet])
    recent.fill(loud.place.target, [])
    for number in range(1, 10):
        recent.add(heard(2, number))
    assert not recent.complete(quiet.place.target)
    assert recent.find(quiet.place.target, quiet.id) is None
    assert recent.complete(loud.place.target)


def test_room_is_counted_over_edits_repeats_and_deletions() -> None:
    recent = Recent()
    one = heard(1, 1)
    for _ in range(3):
        recent.add(one)
    recent.reword(one.place.target, one.id, "a longer text than before")
    recent.remove(one.place.target, one.id)
    recent.remove(ROOM, one.id)
    assert recent._taken == 0
