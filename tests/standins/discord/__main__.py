"""`python -m tests.standins.discord [--port N]`: prints its addresses as JSON when it listens, and with --bots a world.

{"api_base", "gateway_url", "cdn", "control"}; with `--bots manager,webster` also what `furnish` answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys

from tests.standins.discord.server import DiscordServer


async def serve(port: int, heartbeat: float, bots: list[str], *, until_stdin_ends: bool) -> None:
    server = DiscordServer(heartbeat)
    await server.start(port)
    world = server.furnish(bots) if bots else {}
    print(json.dumps(server.addresses | world), flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if until_stdin_ends:
        asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    await stop.wait()
    await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for Discord: REST, CDN, gateway, and a control API.")
    parser.add_argument("--port", type=int, default=0, help="of REST and CDN; 0 takes a free one")
    parser.add_argument("--heartbeat", type=float, default=41.25, help="seconds between a client's heartbeats")
    parser.add_argument("--bots", default="", help="names, separated by commas: a guild with these bots to begin with")
    parser.add_argument("--until-stdin-ends", action="store_true", help="stop when whoever holds our stdin is gone")
    given = parser.parse_args()
    bots = [name for name in given.bots.split(",") if name]
    asyncio.run(serve(given.port, given.heartbeat, bots, until_stdin_ends=given.until_stdin_ends))


if __name__ == "__main__":
    main()
