"""A real llama.cpp server over a tiny model: `PYTHON llama_server.py MODEL`, where PYTHON has `xllamacpp` installed.

Prints `{"url"}` when it listens. Imports nothing of ours: its interpreter may be another one.
"""

from __future__ import annotations

import json
import signal
import sys


def main() -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx = 32768
    params.n_parallel = 1
    params.port = 0  # any free one; it listens on loopback by itself
    params.use_jinja = True
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    print(json.dumps({"url": server.listening_address}), flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
