"""What the cluster's tests share: homes whose gateways are the stand-in."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ClusterHome

STANDIN = (sys.executable, "-P", str(Path(__file__).parent / "standin_gateway.py"))


@pytest.fixture
def standin_home(make_home: Callable[..., ClusterHome]) -> Callable[..., ClusterHome]:
    """Makes homes whose gateways are the stand-in; nothing runs yet."""

    def make(*agents: str) -> ClusterHome:
        home = make_home(*agents)
        home.use_program(*STANDIN)
        return home

    return make


def tell(home: ClusterHome, agent: str, **what: Any) -> None:
    """What the stand-in of `agent` is to do from its next start on."""
    (home.home.instance(agent) / "standin.json").write_text(json.dumps(what))


def states(home: ClusterHome) -> dict[str, dict[str, Any]]:
    """The supervisor's view, by agent, as `status --json` gives it on."""
    return {row["agent"]: row["supervisor"] for row in home.json("status")["agents"]}


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `condition` answers once it is true; fails the test after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.03)
    raise AssertionError(f"did not come true within {seconds} s: {condition}")
