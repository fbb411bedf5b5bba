"""What a model provider is: neutral messages in, a stream of text and one answer out, errors classified once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Any, Literal, Protocol

import msgspec

from protocols.errors import AtomizerError
from protocols.hooks import Thinking
from protocols.runs import Usage
from protocols.text import whole


class Text(msgspec.Struct, tag="text", frozen=True):
    text: str


class ToolCall(msgspec.Struct, tag="tool_call", frozen=True):
    id: str
    name: str
    arguments: dict[str, Any]


class ToolResult(msgspec.Struct, tag="tool_result", frozen=True):
    id: str
    name: str
    content: str
    is_error: bool = False


class Image(msgspec.Struct, tag="image", frozen=True, omit_defaults=True):
    """A picture that a person sent. A conversation holds where it lies; its bytes are read when a model is asked."""

    path: str
    """In the agent's workspace."""
    media_type: str
    sha256: str
    data: str = ""
    """The bytes as base64, in a request that is about to be sent; never kept."""


class Native(msgspec.Struct, tag="native", frozen=True):
    """The whole message as its provider sent it, thinking and signatures included.

    The same provider sends `data` back unmodified in place of the other blocks; another provider ignores it.
    """

    provider: str
    data: Any


Block = Text | Image | ToolCall | ToolResult | Native


class Message(msgspec.Struct, frozen=True):
    role: Literal["user", "assistant"]
    content: list[Block]

    @property
    def text(self) -> str:
        return "".join(b.text for b in self.content if isinstance(b, Text))

    @property
    def tool_calls(self) -> list[ToolCall]:
        return [b for b in self.content if isinstance(b, ToolCall)]


def whole_message(message: Message) -> Message:
    """`message` without half characters in its texts and arguments: neither the ledger nor a provider takes them."""
    built = msgspec.to_builtins(message)
    mended = _whole_value(built)
    return message if mended == built else msgspec.convert(mended, Message)


def _whole_value(value: Any) -> Any:
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, list):
        return [_whole_value(part) for part in value]
    if isinstance(value, dict):
        return {whole(name) if isinstance(name, str) else name: _whole_value(part) for name, part in value.items()}
    return value


class ToolSpec(msgspec.Struct, frozen=True):
    name: str
    description: str
    parameters: dict[str, Any]
    """JSON Schema of an object."""


class Request(msgspec.Struct, frozen=True):
    """One question to a model. `model` is without its provider."""

    model: str
    stable: str
    """The system prompt's prefix, the same from turn to turn: what caches may keep."""
    volatile: str
    """Its suffix: what changes (the date, open runs)."""
    messages: list[Message]
    tools: list[ToolSpec] = []
    max_output_tokens: int = 8192
    thinking: Thinking = "off"


class TextDelta(msgspec.Struct, frozen=True):
    text: str


class Reset(msgspec.Struct, frozen=True):
    """Forget the text so far: the answer begins anew after a cut or with another model."""

    reason: str


Stop = Literal["end", "tool_use", "max_tokens", "refusal", "overflow", "pause"]


class Answer(msgspec.Struct, frozen=True):
    """The end of a stream: the whole message and what it used."""

    message: Message
    usage: Usage
    stop: Stop
    model: str
    """`provider/model` as it answered."""
    cost_usd: float | None = None
    lost: tuple[tuple[str, Usage], ...] = ()
    """What calls before it used, by `provider/model`, that were cut off; whoever prices the answer adds them to it."""


class ErrorKind(StrEnum):
    """How a failed call is treated, whatever the provider calls it."""

    RATE = "rate"
    """Too many requests: retried after `retry_after`, capped."""
    OVERLOAD = "overload"
    """The provider is busy or broken: retried with backoff."""
    NETWORK = "network"
    """No connection, a cut, a timeout: retried with backoff."""
    QUOTA = "quota"
    """No money or a spend limit: the next model, and the operator is told."""
    AUTH = "auth"
    """The key is refused: the next model, and the operator is told."""
    OVERFLOW = "overflow"
    """The conversation is too long for the model."""
    REFUSED = "refused"
    """The provider's safety system declined."""
    CONFIG = "config"
    """Unknown or retired model, or no key: unusable until changed; the next model."""
    INVALID = "invalid"
    """Our request is wrong: a bug; never retried."""

    @property
    def transient(self) -> bool:
        return self in (ErrorKind.RATE, ErrorKind.OVERLOAD, ErrorKind.NETWORK)


class Spent(msgspec.Struct, frozen=True):
    """What calls used that brought no answer: cut off, or not to be read."""

    model: str
    """`provider/model` of the last of them."""
    usage: Usage
    cost_usd: float | None = None
    """None: the price of one of them is not known."""


class ProviderError(AtomizerError):
    """A failed model call, classified. `retry_after` is in seconds, if the provider said."""

    usage: Usage | None = None
    """What the provider had counted when the call failed; it is paid for."""
    lost: tuple[tuple[str, Usage], ...] = ()
    """What all the calls used that were tried before this was final, by `provider/model`."""
    spent: Spent | None = None
    """The same with its price."""

    def __init__(self, kind: ErrorKind, message: str, *, retry_after: float | None = None, model: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after
        self.model = model


class Provider(Protocol):
    """One provider's client. Importing its module must not import its SDK; the first call does, in a thread."""

    name: str

    def stream(self, request: Request) -> AsyncIterator[TextDelta | Answer]:
        """Deltas, then exactly one Answer; raises ProviderError. Never retries by itself."""
        ...

    async def close(self) -> None: ...
