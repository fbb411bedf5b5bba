"""The Gemini API: a neutral request as contents and configuration, chunks as a neutral answer. No SDK needed."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from typing import Any

from gateway.models.catalogue import KnownModel
from gateway.models.conversation import native_of, tidy_with_context
from gateway.models.provider import (
    Answer,
    Block,
    ErrorKind,
    Image,
    Message,
    Native,
    ProviderError,
    Request,
    Stop,
    Text,
    ToolCall,
    ToolResult,
)
from protocols.hooks import Thinking
from protocols.runs import Usage

NAME = "google"

_OWN_ID = "local-"
"""Begins the ids that we gave to calls which came without one; the API never sees them."""
_FOREIGN_SIGNATURE = base64.b64encode(b"skip_thought_signature_validator").decode()
"""Stands for the signature that a call of another provider's model does not have (Gemini's thought-signature FAQ)."""
_BUDGETS: dict[Thinking, int] = {"low": 1024, "medium": 8192, "high": 24576}

_STOPS: dict[str, Stop] = {
    "STOP": "end",
    "FUNCTION_CALL": "end",
    "TOO_MANY_TOOL_CALLS": "end",
    "MAX_TOKENS": "max_tokens",
    "CONTINUATION": "max_tokens",
    "SAFETY": "refusal",
    "RECITATION": "refusal",
    "LANGUAGE": "refusal",
    "BLOCKLIST": "refusal",
    "PROHIBITED_CONTENT": "refusal",
    "SPII": "refusal",
    "IMAGE_SAFETY": "refusal",
    "IMAGE_PROHIBITED_CONTENT": "refusal",
    "IMAGE_RECITATION": "refusal",
    "ESCALATION": "refusal",
    "MODEL_ARMOR": "refusal",
}
_FAILURES: dict[str, tuple[ErrorKind, str]] = {
    "MALFORMED_FUNCTION_CALL": (ErrorKind.OVERLOAD, "the model wrote a tool call that cannot be read"),
    "MALFORMED_RESPONSE": (ErrorKind.OVERLOAD, "the model wrote an answer that cannot be read"),
    "UNEXPECTED_TOOL_CALL": (ErrorKind.OVERLOAD, "the model called a tool that does not exist"),
    "MISSING_THOUGHT_SIGNATURE": (ErrorKind.INVALID, "a thought signature is missing from the conversation"),
    "PUP_LIMITED_DISABLED": (ErrorKind.AUTH, "the account is limited for violating the prohibited-use policy"),
}
"""Finish reasons that are no answer. What a model garbled by chance is worth another try."""


def to_contents(messages: list[Message], model: str, volatile: str = "") -> list[dict[str, Any]]:
    """The conversation in the API's own JSON."""
    signed = not model.startswith(("gemini-1", "gemini-2"))
    known_ids = _ids_the_model_gave(messages)
    return [
        {
            "role": "model" if turn[0].role == "assistant" else "user",
            "parts": [part for message in turn for part in _parts(message, signed, known_ids)],
        }
        for turn in tidy_with_context(messages, NAME, volatile)
    ]


def to_config(request: Request, known: KnownModel | None) -> dict[str, Any]:
    """The arguments of `GenerateContentConfig`."""
    config: dict[str, Any] = {
        "max_output_tokens": request.max_output_tokens,
        "automatic_function_calling": {"disable": True},
    }
    if request.stable.strip():
        config["system_instruction"] = request.stable
    if request.tools:
        config["tools"] = [
            {
                "function_declarations": [
                    {
                        "name": tool.name,
                        "description": tool.description,
                        **({"parameters_json_schema": tool.parameters} if tool.parameters.get("properties") else {}),
                    }
                    for tool in request.tools
                ]
            }
        ]
    thinking = _thinking(request.thinking, known)
    if thinking:
        config["thinking_config"] = thinking
    return config


def _thinking(level: Thinking, known: KnownModel | None) -> dict[str, Any]:
    """A level; a budget of tokens for the models before Gemini 3. Most models cannot stop thinking altogether."""
    least = known.least_thinking if known else ""
    if known is not None and known.thinking == "budget":
        return {"thinking_budget": int(least or 0) if level == "off" else _BUDGETS[level]}
    wanted = least if level == "off" else level
    return {"thinking_level": wanted.upper()} if wanted else {}


def _parts(message: Message, signed: bool, known_ids: set[str]) -> list[dict[str, Any]]:
    native = native_of(message, NAME)
    if native is not None:
        return list(native.data["parts"])
    parts: list[dict[str, Any]] = []
    for block in message.content:
        match block:
            case Text(text=text):
                parts.append({"text": text})
            case Image(media_type=media_type, data=data):
                parts.append({"inlineData": {"mimeType": media_type, "data": data}})
            case ToolCall(name=name, arguments=arguments):
                first = not any("functionCall" in part for part in parts)
                signature = {"thoughtSignature": _FOREIGN_SIGNATURE} if signed and first else {}
                parts.append({"functionCall": {"name": name, "args": arguments}, **signature})
            case ToolResult(id=id, name=name, content=content, is_error=is_error):
                response: dict[str, Any] = {"name": name, "response": {"error" if is_error else "output": content}}
                if id in known_ids:
                    response["id"] = id
                parts.append({"functionResponse": response})
            case Native():
                pass
    return parts


def _ids_the_model_gave(messages: list[Message]) -> set[str]:
    """Ids of calls that go back with the Native block, where the model reads them: only their results name them."""
    return {
        call.id
        for message in messages
        if native_of(message, NAME) is not None
        for call in message.tool_calls
        if not call.id.startswith(_OWN_ID)
    }


class Gathering:
    """One answer while its chunks arrive, each in the API's own JSON."""

    def __init__(self, new_id: Callable[[], str] = lambda: secrets.token_hex(6)) -> None:
        self._new_id = new_id
        self._parts: list[dict[str, Any]] = []
        self._finish: str | None = None
        self._blocked: str | None = None
        self._usage: dict[str, Any] = {}
        self.model = ""
        """As the provider names it."""

    def add(self, chunk: dict[str, Any]) -> str:
        """Take a chunk in; the text it adds to the answer, thoughts not included."""
        self._usage = chunk.get("usageMetadata") or self._usage
        self.model = chunk.get("modelVersion") or self.model
        self._blocked = (chunk.get("promptFeedback") or {}).get("blockReason") or self._blocked
        candidates = chunk.get("candidates") or []
        if not candidates:
            return ""
        self._finish = candidates[0].get("finishReason") or self._finish
        text = ""
        for part in (candidates[0].get("content") or {}).get("parts") or []:
            if "text" in part and not part.get("thought"):
                text += part["text"]
            self._keep(part)
        return text

    def _keep(self, part: dict[str, Any]) -> None:
        """Join bare pieces of text; anything signed stays the part that it was."""
        if part == {"text": ""}:
            return
        last = self._parts[-1] if self._parts else {}
        if _is_bare(part) and _is_bare(last) and part.get("thought") == last.get("thought"):
            self._parts[-1] = last | {"text": last["text"] + part["text"]}
        else:
            self._parts.append(part)

    def finish(self, model: str) -> Answer:
        """The whole answer, `model` as `provider/model`; raises ProviderError if what came is none."""
        if self._blocked and not self._parts:
            raise ProviderError(ErrorKind.REFUSED, f"{NAME} declined the prompt: {self._blocked}")
        if self._finish is None:
            raise ProviderError(ErrorKind.NETWORK, "the stream ended before the answer did")
        if self._finish in _FAILURES:
            kind, what = _FAILURES[self._finish]
            raise ProviderError(kind, f"{self._finish}: {what}")
        blocks: list[Block] = []
        for part in self._parts:
            if "functionCall" in part:
                call = part["functionCall"]
                id = call.get("id") or _OWN_ID + self._new_id()
                blocks.append(ToolCall(id=id, name=call.get("name") or "", arguments=call.get("args") or {}))
            elif part.get("text") and not part.get("thought"):
                blocks.append(Text(part["text"]))
        if self._finish not in _STOPS and not blocks:
            raise ProviderError(ErrorKind.OVERLOAD, f"{self._finish}: the model gave no answer")
        stop = _STOPS.get(self._finish, "end")
        if stop == "end":
            stop = "tool_use" if any(isinstance(block, ToolCall) for block in blocks) else "end"
        if stop == "refusal" and not blocks:
            blocks.append(Text(f"[declined by {NAME} ({self._finish.lower()})]"))
        elif blocks:
            blocks.append(Native(provider=NAME, data={"role": "model", "parts": self._parts}))
        return Answer(message=Message("assistant", blocks), usage=self._count(), stop=stop, model=model)

    def used(self) -> Usage | None:
        """What the chunks so far have said of it; None: nothing."""
        return self._count() if self._usage else None

    def _count(self) -> Usage:
        """Gemini counts cached input in the prompt, and thoughts beside the answer though they are billed with it."""
        count = self._usage.get
        return Usage(
            input_tokens=(count("promptTokenCount") or 0) + (count("toolUsePromptTokenCount") or 0),
            output_tokens=(count("candidatesTokenCount") or 0) + (count("thoughtsTokenCount") or 0),
            cache_read_tokens=count("cachedContentTokenCount") or 0,
        )


def _is_bare(part: dict[str, Any]) -> bool:
    return "text" in part and set(part) <= {"text", "thought"}
