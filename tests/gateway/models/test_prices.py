"""List prices where they are known, nothing where they are not."""

from __future__ import annotations

import pytest

from gateway.models.prices import Prices
from protocols.runs import Usage

NOW = 1_795_000_000.0
MILLION = Usage(input_tokens=1_000_000)
THOUSAND = Usage(input_tokens=1_000, output_tokens=1_000)


@pytest.fixture
def prices() -> Prices:
    return Prices(lambda: NOW)


@pytest.mark.parametrize("model", ["anthropic/claude-opus-4-6", "anthropic/claude-opus-4-6-20260205"])
async def test_a_known_model_with_or_without_its_date(prices: Prices, model: str) -> None:
    assert await prices.cost(model, THOUSAND) == pytest.approx(0.030)


async def test_cached_input_is_cheaper_and_part_of_the_input(prices: Prices) -> None:
    cached = Usage(input_tokens=1_000, cache_read_tokens=1_000)
    assert await prices.cost("anthropic/claude-opus-4-6", cached) == pytest.approx(0.0005)


@pytest.mark.parametrize(
    "model",
    [
        "anthropic/qwen3:8b",
        "anthropic/claude-opus-4-60",
        "anthropic/claude-of-the-future",
        "google/gemini-3.8-flash-foo",
        "google/claude",
        "nobody/nothing",
    ],
)
async def test_an_unknown_model_has_no_price(prices: Prices, model: str) -> None:
    assert await prices.cost(model, THOUSAND) is None


async def test_offline_is_free(prices: Prices) -> None:
    assert await prices.cost("offline/retrieval", MILLION) == 0.0
