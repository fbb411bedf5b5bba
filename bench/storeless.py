"""The same server without a store: our service kit, the same call decoded and answered, nothing kept.

python -m bench.storeless PORT TOKEN_HASH
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web

from protocols.hooks import AgentAccepted, AgentHook
from protocols.runs import new_run_id
from runtime.service.app import Access, Call, Route, build_app
from runtime.service.auth import Auth


async def accept(call: Call) -> tuple[int, AgentAccepted]:
    await call.body(AgentHook)
    run_id = new_run_id()
    return 202, AgentAccepted(ok=True, run_id=run_id, status="queued", status_url=f"/hooks/runs/{run_id}")


async def serve(port: int, token_hash: str) -> None:
    route = Route("POST", "/hooks/agent", accept, Access.WORK, "Answer and forget", AgentAccepted, body=AgentHook)
    app = build_app([route], Auth({token_hash: "operator"}), allowed_hosts=lambda: [])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
