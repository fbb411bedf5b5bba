"""The MCP SDK, imported beside the running loop when it is first needed: 55 MiB and more than a second."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gateway.models.sdk import load_sdk


async def load_mcp() -> Any:
    """The parts of the SDK that are used here, by name."""
    sdk = await load_sdk("mcp")
    http = await load_sdk("mcp.client.streamable_http")
    message = await load_sdk("mcp.shared.message")
    anyio = await load_sdk("anyio")
    types = await load_sdk("mcp_types")
    httpx = await load_sdk("httpx2")
    return SimpleNamespace(
        Client=sdk.Client,
        MCPError=sdk.MCPError,
        Implementation=sdk.Implementation,
        SessionMessage=message.SessionMessage,
        jsonrpc_message_adapter=types.jsonrpc_message_adapter,
        create_memory_object_stream=anyio.create_memory_object_stream,
        ClosedResourceError=anyio.ClosedResourceError,
        BrokenResourceError=anyio.BrokenResourceError,
        streamable_http_client=http.streamable_http_client,
        create_mcp_http_client=http.create_mcp_http_client,
        CONNECTION_CLOSED=types.CONNECTION_CLOSED,
        REQUEST_TIMEOUT=types.REQUEST_TIMEOUT,
        HTTPError=httpx.HTTPError,
    )
