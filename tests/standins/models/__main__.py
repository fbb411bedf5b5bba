"""`python -m tests.standins.models [--port N] [--script FILE]`: prints `{"url", "key"}` when it listens."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
from pathlib import Path

from tests.standins.models.script import Reply, load_script
from tests.standins.models.server import KEY, ModelServer


async def serve(port: int, script: Path | None, key: str) -> None:
    replies = load_script(script.read_bytes()) if script else [Reply(text="Hello from the stand-in.", times=0)]
    server = ModelServer(*replies, key=key)
    await server.start(port)
    print(json.dumps({"url": server.url, "key": key}), flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for the servers of Anthropic, Google and OpenAI.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--script", type=Path, help="JSON: a list of replies (see script.py); default: one greeting")
    parser.add_argument("--key", default=KEY, help="the API key that is accepted")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(given.port, given.script, given.key))


if __name__ == "__main__":
    main()
