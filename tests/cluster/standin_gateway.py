"""An honest little gateway for the supervisor's tests: a real process, a real port, a real `/health`.

What it does besides is written, as JSON, in `standin.json` of its working folder:
{"exit": 1}         say "standin: told to exit" and end with that code before listening
{"deaf": true}      ignore SIGTERM
{"grandchild": W}   start a `sleep` that outlives us; W is "session" (setsid, own scope) or "clean" (and no environment)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def main() -> int:
    from pathlib import Path as _Path

    from runtime.config import load_cluster
    from runtime.home import Home

    arguments = sys.argv[1:]
    home = Home(_Path(arguments[arguments.index("--home") + 1]))
    agent = arguments[arguments.index("--agent") + 1]
    try:
        told = json.loads(Path("standin.json").read_text())
    except FileNotFoundError:
        told = {}
    if "exit" in told:
        print("standin: told to exit", file=sys.stderr)
        return int(told["exit"])
    instance = uuid.uuid4().hex

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            health = {
                "ok": True,
                "status": "live",
                "service": "atomizer-gateway",
                "agent": agent,
                "instance": instance,
                "version": "0",
            }
            found = self.path == "/health"
            body = json.dumps(health if found else {"ok": False, "error": {"code": "not_found", "message": "no"}})
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    try:
        server = ThreadingHTTPServer(("127.0.0.1", load_cluster(home).agent(agent).port), Handler)
    except OSError as error:
        print(f"standin: {error.strerror}", file=sys.stderr)
        return 75
    if how := told.get("grandchild"):
        child = subprocess.Popen(
            ["setsid", "sleep", "600"] if how == "session" else ["env", "-i", "setsid", "-f", "/bin/sleep", "600"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        Path("grandchild.pid").write_text(str(child.pid))
    if told.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server.serve_forever()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
