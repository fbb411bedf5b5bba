"""What the tests of an agent's ears share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.channels.listening import ANN, BOB, ROBOT, World, ears_of


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """An agent that listens to two people and a bot."""
    built = World(tmp_path, dm="pairing", history=5)
    built.ears = ears_of(users=frozenset({ANN.id, BOB.id}), bots=frozenset({ROBOT.id}))
    yield built
    built.close()
