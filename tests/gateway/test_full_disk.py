"""A disk that is full: a plain 507, nothing half-written, and all is well again once there is room."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocols.runs import RunState
from tests.conftest import ClusterHome
from tests.gateway.process import running


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own at `folder`, as large as said; skips the test where none may be mounted."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)


def test_a_full_disk_answers_507_never_hangs_and_goes_on_when_there_is_room(
    make_home: Callable[..., ClusterHome],
) -> None:
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    home = make_home("webster")
    folder = home.home.instance("webster")
    kept = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    with small_disk(folder, 8):
        for name, data in kept.items():
            (folder / name).write_bytes(data)
        with running(home, "webster") as (gateway,):
            gateway.result(gateway.delegate("remember before"))
            accepted = gateway.sql("SELECT count(*) FROM runs")
            fill(folder / "ballast")
            refused = 0
            for n in range(60):
                begun = time.monotonic()
                status, _, body = gateway.post("/hooks/agent", {"message": "x" * 100_000, "idempotencyKey": f"{n}"})
                assert time.monotonic() - begun < 5
                if status == 507:
                    refused += 1
                    assert "free some space" in body["error"]["message"]
                    break
                assert status == 202
            assert refused == 1
            assert gateway.raw("GET", "/health")[0] == 200
            status, _, body = gateway.raw("PUT", "/control/model", b'{"model":"offline/echo"}', gateway.headers())
            assert status == 507, body
            assert gateway.status().model.active == "offline/retrieval"
            (folder / "ballast").unlink()
            time.sleep(2.1)  # `/ready` tries the ledger again only after that
            assert gateway.raw("GET", "/ready")[0] == 200
            run = gateway.result(gateway.delegate("remember after"), seconds=60)
            assert run.state is RunState.SUCCEEDED
            assert gateway.sql("SELECT count(*) FROM runs") > accepted
            until = time.monotonic() + 60
            while gateway.sql("SELECT count(*) FROM runs WHERE state IN ('queued', 'running')") != [(0,)]:
                assert time.monotonic() < until, gateway.sql("SELECT state, count(*) FROM runs GROUP BY state")
                time.sleep(0.1)
            assert gateway.stop() == 0
