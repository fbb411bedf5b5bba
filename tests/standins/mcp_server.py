"""A real MCP server on the SDK's own classes: `python -m tests.standins.mcp_server [--http PORT] [--log FILE]`.

Its tools look, act, fail, stall and die, so that a client can be held to what it says about each.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import sys
from pathlib import Path
from typing import Annotated

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field


def build(log: Path | None) -> MCPServer:
    server = MCPServer("standin")

    def note(text: str) -> None:
        if log is not None:
            with open(log, "a") as file:
                file.write(text + "\n")

    @server.tool()
    def add(a: Annotated[int, Field(description="The first number")], b: int) -> str:
        """Add two numbers."""
        note(f"add {a} {b}")
        return str(a + b)

    @server.tool()
    def environment() -> str:
        """The server's own environment."""
        return "\n".join(f"{key}={value}" for key, value in sorted(os.environ.items()))

    @server.tool()
    def read(path: str) -> str:
        """Read any file the server can."""
        try:
            return Path(path).read_bytes()[:5000].decode(errors="replace")
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}") from None

    @server.tool()
    def long(characters: int) -> str:
        """A long text."""
        return "x" * characters

    @server.tool()
    def picture() -> Image:
        """A picture."""
        return Image(data=base64.b64decode("iVBORw0KGgo="), format="png")

    @server.tool()
    def fail() -> str:
        """Fail."""
        raise ToolError("the licence server is away")

    @server.tool()
    async def stall(how_long: float) -> str:
        """Take long."""
        note("stall begins")
        try:
            await asyncio.sleep(how_long)
        except asyncio.CancelledError:
            note("stall cancelled")
            raise
        return "done"

    @server.tool()
    def die() -> str:
        """End the server in the middle of a call."""
        note("die")
        os._exit(3)

    @server.tool()
    def pid() -> str:
        """The server's process."""
        return str(os.getpid())

    return server


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", type=int)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--broken", action="store_true")
    arguments = parser.parse_args()
    if arguments.broken:
        sys.exit("no licence found; set LICENCE_FILE")
    print("stand-in ready to serve", file=sys.stderr, flush=True)
    server = build(arguments.log)
    if arguments.http:
        server.run("streamable-http", host="127.0.0.1", port=arguments.http)
    else:
        server.run("stdio")


if __name__ == "__main__":
    main()
