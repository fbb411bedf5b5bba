"""One MCP server: connected in the background, watched, connected again with backoff; its tools, and calls of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from gateway.mcp.launch import Launcher, LaunchError
from gateway.mcp.loading import load_mcp
from gateway.mcp.results import as_text
from gateway.mcp.stdio import stdio_transport
from protocols import VERSION
from protocols.errors import AtomizerError
from protocols.status import McpServerStatus
from runtime.config import parse_duration
from runtime.config_reach import McpTable

log = logging.getLogger("mcp")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
"""Seconds before a server is started again; doubled each time, and less by chance."""
STEADY_SECONDS = 60.0
"""A server that was up so long starts again with the first pause."""
CONNECT_SECONDS = 60.0
LEAVE_SECONDS = 2.0
"""A server over HTTP has so long to hear that its session ends; the SDK waits as long as for a stream's next word."""
LOOK_SECONDS = 60.0
"""A server over HTTP is asked for its tools so often, which also tells whether it is there."""
WAIT_SECONDS = 30.0
"""A call waits so long for a server that is just starting, or about to."""
MAX_TOOLS = 128
MAX_PAGES = 20
MAX_SCHEMA = 30_000
"""Characters of one tool's schema."""
_STDERR_LINES = 20


class McpFailed(AtomizerError):
    """A call that could not be made or was refused; `said` is what the server says about it, text from outside."""

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said


class McpToolSpec(msgspec.Struct, frozen=True):
    """A tool as its server describes it."""

    name: str
    description: str
    schema: dict[str, Any]


class McpServer:
    """`[mcp.NAME]`. `serve()` runs until it is cancelled; the tools are kept while the server is away."""

    def __init__(
        self,
        name: str,
        table: McpTable,
        launcher: Launcher,
        *,
        on_change: Callable[[bool], None],
        redact: Callable[[str], str],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.table = table
        self.tools: list[McpToolSpec] = []
        self.settled = asyncio.Event()
        """The first attempt has ended, one way or the other."""
        self.launcher = launcher
        self._on_change = on_change
        self._redact = redact
        self._chance = chance
        self._timeout = parse_duration(table.timeout)
        self._client: Any = None
        self._ready = asyncio.Event()
        self._gone = asyncio.Event()
        self._relist = asyncio.Event()
        self._state, self._reason = "starting", ""
        self._since = time.time()
        self._next_at: float | None = None
        self._starts = 0
        self._why = ""
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)

    def status(self) -> McpServerStatus:
        return McpServerStatus(
            name=self.name,
            transport="http" if self.table.url else "stdio",
            state=self._state,
            reason=self._reason,
            since=self._since,
            next_at=self._next_at,
            starts=self._starts,
            tools=[tool.name for tool in self.tools],
        )

    async def serve(self) -> None:
        """Connect, stay connected, connect again."""
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            self._starts += 1
            self._set("starting")
            try:
                await self._connected()
                problem = self._why or "the connection ended"
            except (Exception, BaseExceptionGroup) as error:  # a server may fail in any way; it must not take us along
                problem = self._explain(error)
            finally:
                self._client = None
                self._ready.clear()
            if time.monotonic() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE
            wait = pause * (0.5 + self._chance() / 2)
            pause = min(LONGEST_PAUSE, pause * 2)
            self._next_at = time.time() + wait
            self._set("failed", problem)
            log.warning("the MCP server %s: %s; it is started again in %.0f s", self.name, problem, wait)
            self.settled.set()
            await asyncio.sleep(wait)

    async def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """The tool's result as text; raises McpFailed. Cancelling it cancels the call at the server too."""
        soon = self._next_at is None or self._next_at - time.time() < FIRST_PAUSE
        if not self._ready.is_set() and soon:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ready.wait(), WAIT_SECONDS)
        client = self._client
        if client is None:
            raise McpFailed(f"the MCP server {self.name} is not there; try again later", self._reason or self._state)
        sdk = await load_mcp()
        try:
            result = await client.call_tool(tool, arguments, read_timeout_seconds=self._timeout)
        except sdk.MCPError as error:
            if error.code == sdk.CONNECTION_CLOSED:
                self._lost(client)
                raise McpFailed(
                    f"the MCP server {self.name} ended during the call; whether it was carried out is not known"
                ) from None
            if error.code == sdk.REQUEST_TIMEOUT:
                raise McpFailed(
                    f"{self.name} did not answer within {self._timeout:.0f} s; the call was cancelled"
                ) from None
            raise McpFailed(f"{self.name} refused the call", self._redact(str(error))[:4000]) from None
        except (OSError, ValueError, sdk.HTTPError) as error:
            self._lost(client)
            raise McpFailed(f"the call to {self.name} failed", self._redact(str(error))[:500]) from None
        text = as_text(result)
        if result.is_error:
            raise McpFailed(f"{tool} of {self.name} failed", text[:4000])
        return text

    async def _connected(self) -> None:
        """One connection, from its beginning until it ends."""
        sdk = await load_mcp()
        self._gone.clear()
        self._why = ""
        async with contextlib.AsyncExitStack() as stack:
            transport = await self._transport(stack, sdk)
            client = sdk.Client(
                transport,
                read_timeout_seconds=self._timeout,
                message_handler=self._hear,
                client_info=sdk.Implementation(name="atomizer", version=VERSION),
                cache=None,
            )
            async with asyncio.timeout(CONNECT_SECONDS):
                await stack.enter_async_context(client)
                await self._list(client)
            self._client = client
            self._set("ready")
            self._ready.set()
            self.settled.set()
            log.info("the MCP server %s is ready with %d tools", self.name, len(self.tools))
            await self._stay(client)

    async def _stay(self, client: Any) -> None:
        """Until the connection is lost. Tools are listed again when the server says so, over HTTP now and then too."""
        while not self._gone.is_set():
            waiting = [asyncio.create_task(event.wait()) for event in (self._gone, self._relist)]
            try:
                await asyncio.wait(
                    waiting,
                    timeout=LOOK_SECONDS if self.table.url else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                for task in waiting:
                    task.cancel()
            if not self._gone.is_set():
                self._relist.clear()
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._list(client)

    async def _transport(self, stack: contextlib.AsyncExitStack, sdk: Any) -> Any:
        if self.table.url is not None:
            client = await stack.enter_async_context(
                sdk.create_mcp_http_client(headers=self.launcher.headers(self.name, self.table))
            )
            client.event_hooks = {"request": [_end_soon]}
            return sdk.streamable_http_client(self.table.url, http_client=client)
        launch = await asyncio.to_thread(self.launcher.prepare, self.name, self.table)
        errors = await stack.enter_async_context(self._stderr_pipe())
        return stdio_transport(sdk, launch, errors, self._end)

    def _end(self, why: str) -> None:
        """The server's side has ended."""
        self._why = why
        self._lost(self._client)

    def _lost(self, client: Any) -> None:
        """Its connection serves nobody any more: the next call waits for another one."""
        if client is self._client:  # else there is another one already
            self._client = None
            self._ready.clear()
            self._gone.set()

    @contextlib.asynccontextmanager
    async def _stderr_pipe(self) -> AsyncIterator[Any]:
        """A file for a server's standard error, whose lines go into the log."""
        reading, writing = os.pipe()
        stream = asyncio.StreamReader(limit=8192)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reading, "rb", buffering=0)
        )
        self._stderr.clear()
        reader = asyncio.create_task(self._log_lines(stream), name=f"mcp-{self.name}-stderr")
        try:
            with os.fdopen(writing, "wb", buffering=0) as file:
                yield file
        finally:
            reader.cancel()
            transport.close()

    async def _log_lines(self, stream: asyncio.StreamReader) -> None:
        """At most one line each 50 ms is logged; a server that floods waits for its reader."""
        while True:
            try:
                raw = await stream.readuntil(b"\n")
            except asyncio.IncompleteReadError as end:
                raw = end.partial
                if not raw:
                    return
            except asyncio.LimitOverrunError as error:
                raw = await stream.readexactly(min(error.consumed or 4096, 4096))
            line = " ".join(raw.decode(errors="replace").split())[:500]
            if line:
                self._stderr.append(line)
                log.info("%s: %s", self.name, line)
                await asyncio.sleep(0.05)

    async def _list(self, client: Any) -> None:
        found: list[McpToolSpec] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            for tool in page.tools:
                schema = dict(tool.input_schema)
                if schema.get("type") != "object" or len(msgspec.json.encode(schema)) > MAX_SCHEMA:
                    log.warning(
                        "%s: the tool %r is left out: its schema is no object, or too long", self.name, tool.name
                    )
                    continue
                found.append(McpToolSpec(tool.name, tool.description or tool.title or "", schema))
            cursor = page.next_cursor
            if not cursor or len(found) >= MAX_TOOLS:
                break
        found = found[:MAX_TOOLS]
        if found != self.tools:
            self.tools = found
            self._on_change(True)

    async def _hear(self, message: Any) -> None:
        """Notifications of the server, and what could not be read."""
        if getattr(message, "method", "") == "notifications/tools/list_changed":
            self._relist.set()

    def _set(self, state: str, reason: str = "") -> None:
        if state == "ready" or state != self._state:
            self._since = time.time()
        if state != "failed":
            self._next_at = None
        self._state, self._reason = state, reason
        self._on_change(False)

    def _explain(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup) and error.exceptions:
            error = error.exceptions[0]
        if isinstance(error, LaunchError):
            return str(error)
        if self._why:
            return self._why
        said = f"; it said: {self._stderr[-1]}" if self._stderr else ""
        if isinstance(error, TimeoutError):
            return f"it did not answer within {CONNECT_SECONDS:.0f} s{said}"
        text = " ".join(str(error).split())[:300] or type(error).__name__
        return self._redact(f"{text}{said}")


async def _end_soon(request: Any) -> None:
    if request.method == "DELETE":
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), LEAVE_SECONDS)
