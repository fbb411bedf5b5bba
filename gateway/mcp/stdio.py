"""The pipe to an MCP server that is a program: one JSON message on each line, and no more of it than we can hold.

The SDK's own reads a line however long it grows and logs each one that is no message: a server that floods its
standard output would take the gateway along.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from gateway.mcp.launch import Launch

log = logging.getLogger("mcp")

MAX_LINE = 8 * 2**20
"""Bytes of one message; a large picture fits."""
MAX_ODD_LINES = 100
"""Lines that are no messages (a banner, a print) before the server is taken for none."""
_LEAVE_SECONDS = 2.0
"""What a server gets to end by itself once its input is closed; then the keeper ends it."""
_END_SECONDS = 3.0


@contextlib.asynccontextmanager
async def stdio_transport(
    sdk: Any, launch: Launch, errors: Any, ended: Callable[[str], None]
) -> AsyncIterator[tuple[Any, Any]]:
    """A transport for the SDK's client. `ended(why)` is called when the server says no more, with a
    reason if it was ended for it; raises OSError."""
    process = await asyncio.create_subprocess_exec(
        *launch.argv,
        cwd=launch.cwd,
        env=launch.env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        limit=MAX_LINE,
        start_new_session=True,
    )
    heard, hearing = sdk.create_memory_object_stream(0)
    saying, said = sdk.create_memory_object_stream(0)
    tasks = [
        asyncio.create_task(_read(sdk, process, heard, ended), name="mcp-stdout"),
        asyncio.create_task(_write(process, said), name="mcp-stdin"),
    ]
    try:
        yield hearing, saying
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in (heard, hearing, saying, said):
            stream.close()
        await _end(process)


async def _read(sdk: Any, process: asyncio.subprocess.Process, heard: Any, ended: Callable[[str], None]) -> None:
    assert process.stdout is not None
    odd, why = 0, ""
    try:
        while odd <= MAX_ODD_LINES:
            line = await process.stdout.readuntil(b"\n")
            try:
                message = sdk.jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:
                odd += bool(line.strip())
                continue
            await heard.send(sdk.SessionMessage(message))
        why = "it writes something else than MCP's messages to its standard output"
    except asyncio.LimitOverrunError:
        why = f"it wrote a message of more than {MAX_LINE // 2**20} MiB"
    except (asyncio.IncompleteReadError, OSError, sdk.ClosedResourceError, sdk.BrokenResourceError):
        pass  # the end, of the server or of us
    finally:
        ended(why)
        heard.close()


async def _write(process: asyncio.subprocess.Process, said: Any) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        async for message in said:
            process.stdin.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await process.stdin.drain()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Its input is closed, then it is told to end; the keeper leaves nothing of it."""
    assert process.stdin is not None
    process.stdin.close()
    for seconds, end in ((_LEAVE_SECONDS, process.terminate), (_END_SECONDS, process.kill), (_END_SECONDS, None)):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while process.stdout is not None and await process.stdout.read(65536):
                    pass  # one that is stuck writing reads no end of its input
                await process.wait()
                return
        if end is not None:
            with contextlib.suppress(ProcessLookupError):
                end()
