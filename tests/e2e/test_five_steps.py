"""`atomizer delegate study-builder` does a task of five steps with a tool-calling model server; all are shown."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ClusterHome
from tests.e2e.models import ModelProcess, use_models
from tests.standins.models.script import Call, Reply

STUDY = "trials: 20\nmesh: coarse\n"


def test_read_run_edit_check_and_log(make_home: Callable[..., ClusterHome], tmp_path: Path) -> None:
    server = ModelProcess(
        tmp_path,
        Reply(calls=[Call("read_file", {"path": "study.yaml"})]),
        Reply(calls=[Call("exec", {"command": "wc -l < study.yaml && echo counted"})]),
        Reply(calls=[Call("edit_file", {"path": "study.yaml", "old": "mesh: coarse", "new": "mesh: fine"})]),
        Reply(calls=[Call("exec", {"command": "grep fine study.yaml"})]),
        Reply(calls=[Call("project_log", {"text": "study.yaml now asks for the fine mesh"})]),
        Reply(text="The study uses the fine mesh; checked and logged."),
    )
    home = make_home("study-builder")
    use_models(home, server)
    (home.home.workspace("study-builder") / "study.yaml").write_text(STUDY)
    try:
        home.cli("start")
        task = ("Refine the mesh.", "--wait")
        asking = subprocess.Popen(
            [sys.executable, "-P", "-m", "cluster.cli", "delegate", "study-builder", *task, "--home", str(home.root)],
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        until = time.monotonic() + 60
        while not (waiting := home.json("approvals")["approvals"]):  # the first command is on no allow-list
            assert time.monotonic() < until
            assert asking.poll() is None
            time.sleep(0.1)
        assert waiting[0]["question"].startswith("exec: wc -l")
        home.cli("approvals", "approve", waiting[0]["id"])
        said, _ = asking.communicate(timeout=60)
        assert asking.returncode == 0
        assert "checked and logged" in said
        run = home.json("runs", "study-builder")["runs"][-1]
        shown = home.cli("run", "show", run["runId"])
        for word in ("read_file", "exec", "edit_file", "grep fine study.yaml", "mesh: fine", "project_log"):
            assert word in shown
        assert (home.home.workspace("study-builder") / "study.yaml").read_text() == STUDY.replace("coarse", "fine")
        assert "now asks for the fine mesh" in home.home.project_log.read_text()
    finally:
        server.close()
