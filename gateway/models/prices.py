"""What an answer cost, from the `genai-prices` table: list prices, offline, with long-context tiers."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any

from gateway.models.sdk import load_sdk
from protocols.runs import Usage

FREE = "offline"
"""The provider whose answers cost nothing."""
_VERSION = re.compile(r"^(?:[-@]\d{8}|-\d{3}|-latest|-preview(?:-[\d-]+)?)?$")
"""What may follow a model's id without making it another model."""


class Prices:
    """Loaded with the first answer that has a price to look up, in a thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._table: Any = None

    async def cost(self, model: str, usage: Usage) -> float | None:
        """US dollars for one answer of `provider/model`; None where no price is known, never a guess."""
        provider, _, name = model.partition("/")
        if provider == FREE:
            return 0.0
        if self._table is None:
            self._table = await load_sdk("genai_prices")
        return self._look_up(provider, name, usage)

    def _look_up(self, provider: str, name: str, usage: Usage) -> float | None:
        tokens = self._table.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        )
        now = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        try:
            price = self._table.calc_price(tokens, name, provider_id=provider, genai_request_timestamp=now)
        except (LookupError, ValueError):
            return None
        beyond = name.removeprefix(price.model.id)
        if beyond != name and not _VERSION.match(beyond):
            return None  # the table takes `claude-opus-4-60` for a claude-opus-4-6
        return float(price.total_price)
