"""What an MCP tool answered, as text for a model."""

from __future__ import annotations

from typing import Any

import msgspec


def as_text(result: Any) -> str:
    """A CallToolResult's text parts; other parts are named, not shown."""
    parts = [_part(block) for block in result.content]
    text = "\n".join(part for part in parts if part)
    if not text and result.structured_content is not None:
        text = msgspec.json.format(msgspec.json.encode(result.structured_content), indent=1).decode()
    return text or "[no text]"


def _part(block: Any) -> str:
    kind = getattr(block, "type", "")
    if kind == "text":
        return str(block.text)
    if kind in ("image", "audio"):
        return f"[{kind} {block.mime_type}, {len(block.data) * 3 // 4} bytes: not shown]"
    if kind == "resource_link":
        return f"[resource {block.uri}: {block.name}]"
    if kind == "resource":
        text = getattr(block.resource, "text", None)
        return f"[resource {block.resource.uri}]" + (f"\n{text}" if text is not None else " not text: not shown")
    return f"[{kind or 'something'}: not shown]"
