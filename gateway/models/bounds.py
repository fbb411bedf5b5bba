"""What a model call may use and cost at most, before it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from gateway.models.catalogue import Catalogue
from gateway.models.prices import FREE, Prices
from gateway.models.provider import Image, Request
from protocols.runs import Usage

BYTES_PER_TOKEN = 2
"""Of text and JSON as sent. Models make a token of three to four bytes of prose, of fewer where there are numbers."""
IMAGE_TOKENS = 5000
"""Of one image: Anthropic counts up to 4784 for a large one, the others less."""
_ENVELOPE = 64
"""Tokens that roles, markers and a tool's or a message's frame may add, each."""

_encode = msgspec.json.Encoder().encode


class Bound(msgspec.Struct, frozen=True):
    """An upper bound of one call, over every model that may answer it."""

    usd: float
    """Of the dearest whose price is known."""
    tokens: int
    unpriced_tokens: int
    """0 if every price is known."""


async def upper_bound(
    models: Sequence[str],
    request: Request,
    catalogue: Catalogue,
    prices: Prices,
    *,
    by_plan: Callable[[str], bool] = lambda model: False,
) -> Bound | None:
    """None if the call costs nothing: only offline models would answer.

    `by_plan(model)`: an account's plan pays, so that its tokens count and have no price.
    """
    paid = [model for model in models if model.partition("/")[0] != FREE]
    if not paid:
        return None
    sent = _tokens_sent(request)
    usd, most, unpriced = 0.0, 0, 0
    for model in paid:
        known = catalogue.find(model)
        answered = min(request.max_output_tokens, (known.max_output if known else None) or request.max_output_tokens)
        tokens = sent + answered
        most = max(most, tokens)
        if by_plan(model):
            continue
        plain = await prices.cost(model, Usage(input_tokens=sent, output_tokens=answered))
        written = await prices.cost(
            model, Usage(input_tokens=sent, output_tokens=answered, cache_write_tokens=sent)
        )  # writing to a provider's cache costs more than reading without it
        if plain is None:
            unpriced = max(unpriced, tokens)
        else:
            usd = max(usd, plain, written or 0.0)
    return Bound(usd, most, unpriced)


def _tokens_sent(request: Request) -> int:
    size = len(request.stable.encode()) + len(request.volatile.encode())
    size += sum(len(_encode(message.content)) for message in request.messages)
    size += sum(len(_encode(tool)) for tool in request.tools)
    images = sum(isinstance(block, Image) for message in request.messages for block in message.content)
    return (
        IMAGE_TOKENS * images + size // BYTES_PER_TOKEN + _ENVELOPE * (1 + len(request.messages) + len(request.tools))
    )
