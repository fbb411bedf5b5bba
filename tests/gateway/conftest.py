"""One gateway for the tests that leave it as they found it; others make their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import ClusterHome
from tests.gateway.process import GatewayProcess, running


@pytest.fixture(scope="module")
def webster() -> Iterator[GatewayProcess]:
    """A real Webster, offline, alone."""
    home = ClusterHome(("manager", "webster", "secretary"))
    try:
        with running(home, "webster") as (gateway,):
            yield gateway
    finally:
        home.close()
