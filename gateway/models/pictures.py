"""Images in a conversation: what they are by their first bytes, and their bytes when a model is about to be asked."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import os
import stat
import struct
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import msgspec

from gateway.models.provider import (
    Answer,
    Block,
    ErrorKind,
    Image,
    Message,
    ProviderError,
    Request,
    Reset,
    Text,
    TextDelta,
)

log = logging.getLogger("models")

MOST_BYTES = 3_500_000
"""Of one image. Providers take 5 MB at least, some of it as base64, which is a third longer."""
MOST_SIDE = 8000
"""Pixels: a longer side is refused by Anthropic's API (vision guide)."""
MOST_IMAGES = 20
"""Images of one request, the newest: of more, Anthropic's API takes smaller ones only. Older ones become a line."""
MOST_BYTES_OF_ALL = 14_000_000
"""Of these images together. As base64 they leave room in a request, which Gemini's API takes up to 20 MB."""
_MOST_SEGMENTS = 1000
"""Of a JPEG before its size, fill bytes included."""

Answering = AsyncGenerator[TextDelta | Reset | Answer, None]


async def ask_with_pictures(request: Request, workspace: Path, ask: Callable[[Request], Answering]) -> Answering:
    """As `ask(request)`, with the images' bytes.

    If the provider finds the request wrong, it is asked once more without images: one that it cannot read would else
    spoil every further answer of the conversation.
    """
    pictured = any(isinstance(block, Image) for message in request.messages for block in message.content)
    asked, begun = request, False
    if pictured:
        messages = await asyncio.to_thread(read_pictures, request.messages, workspace)
        asked = msgspec.structs.replace(request, messages=messages)
    try:
        async with contextlib.aclosing(ask(asked)) as items:
            async for item in items:
                begun = True
                yield item
        return
    except ProviderError as error:
        if not pictured or begun or error.kind is not ErrorKind.INVALID:
            raise
        log.warning("asked again without images, for they may be what was refused: %s", error)
    plain = without_pictures(request.messages, "the model refused it")
    async with contextlib.aclosing(ask(msgspec.structs.replace(request, messages=plain))) as items:
        async for item in items:
            yield item


def kind_of(data: bytes) -> str | None:
    """The media type of an image that models take; None for anything else, whatever its name says."""
    if len(data) > MOST_BYTES:
        return None
    kind = _media_type(data)
    if kind is None:
        return None
    width, height = _size(data, kind)
    return kind if 0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE else None


def read_pictures(messages: Sequence[Message], workspace: Path) -> list[Message]:
    """The messages with the bytes of their images. One that is gone or changed is replaced by a line that says so.

    Reads files: not for the event loop.
    """
    images = [block for message in messages for block in message.content if isinstance(block, Image)]
    past = len(images) - _newest_that_fit(images, workspace)
    done: list[Message] = []
    for message in messages:
        if not any(isinstance(block, Image) for block in message.content):
            done.append(message)
            continue
        content: list[Block] = []
        for block in message.content:
            if isinstance(block, Image):
                old, past = past > 0, past - 1
                content.append(instead(block, "older than those that are shown") if old else _read(block, workspace))
            else:
                content.append(block)
        done.append(Message(message.role, content))
    return done


def _newest_that_fit(images: Sequence[Image], workspace: Path) -> int:
    total = 0
    for count, image in enumerate(reversed(images)):
        with contextlib.suppress(OSError):
            total += min(os.stat(workspace / image.path).st_size, MOST_BYTES)
        if count == MOST_IMAGES or total > MOST_BYTES_OF_ALL:
            return count
    return len(images)


def without_pictures(messages: Sequence[Message], why: str) -> list[Message]:
    """The messages with a line in place of each image."""
    return [
        Message(m.role, [instead(block, why) if isinstance(block, Image) else block for block in m.content])
        for m in messages
    ]


def instead(image: Image, why: str) -> Text:
    """What a model reads where it cannot see an image."""
    return Text(f"[image {image.path} is not shown: {why}]")


def _read(image: Image, workspace: Path) -> Block:
    try:
        file = os.open(workspace / image.path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return instead(image, "the file is gone")
    with os.fdopen(file, "rb") as opened:
        found = os.fstat(opened.fileno())
        data = opened.read(MOST_BYTES + 1) if stat.S_ISREG(found.st_mode) else b""
    if hashlib.sha256(data).hexdigest() != image.sha256:
        return instead(image, "the file is another now")
    return msgspec.structs.replace(image, data=base64.b64encode(data).decode())


def _media_type(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _size(data: bytes, kind: str) -> tuple[int, int]:
    """(width, height) in pixels, from the header; (0, 0) if it is damaged."""
    try:
        if kind == "image/png":
            return struct.unpack(">II", data[16:24])
        if kind == "image/gif":
            return struct.unpack("<HH", data[6:10])
        return _webp_size(data) if kind == "image/webp" else _jpeg_size(data)
    except (struct.error, IndexError):
        return 0, 0


def _webp_size(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8 ":
            width, height = struct.unpack("<HH", data[26:30])
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack("<I", data[21:25])
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X" if len(data) >= 30:
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return 0, 0


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """From the frame's header; the segments before it are passed over, as many as an honest image has."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if data[at : at + 2] == b"\xff\xff":
            at += 1  # a fill byte
            continue
        marker, (length,) = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])
        if data[at] != 0xFF or length < 2:
            return 0, 0
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + length
    return 0, 0
