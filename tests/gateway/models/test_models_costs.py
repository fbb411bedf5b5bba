"""What the models cost a gateway: nothing until they are asked, then within the budgets. Figures are printed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.standins.models import KEY, ModelServer, Reply

ROOT = Path(__file__).resolve().parents[3]
PRICES_MIB = 8
"""The price table, loaded after the first call, may add this."""
STALL_MS = 80
ROUNDS = 3
"""A stall is the best of these: a busy machine stalls loops too."""


def test_importing_the_models_imports_no_sdk() -> None:
    code = (
        "import sys, importlib, pathlib, gateway.models as m\n"
        "for f in sorted(pathlib.Path(m.__path__[0]).glob('*.py')):\n"
        "    importlib.import_module('gateway.models.' + f.stem) if f.stem != '__init__' else None\n"
        "heavy = ('anthropic', 'google.genai', 'genai_prices', 'pydantic', 'httpx2', 'openai')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(("provider", "budget"), [("anthropic", 110), ("google", 92), ("openai", 80)])
async def test_memory_after_the_first_call_and_the_stall_while_the_sdk_is_imported(
    provider: str, budget: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async with ModelServer(Reply(text="hello there", times=0)) as server:
        rounds: list[dict[str, Any]] = []
        while len(rounds) < ROUNDS and (not rounds or rounds[-1]["longest_stall_ms"] > STALL_MS):
            rounds.append(await one_call(provider, server.url))
    with capsys.disabled():
        print(f"\n{provider}: {json.dumps(rounds[-1])}")
    figures = rounds[-1]
    assert figures["after_call"] <= budget
    assert figures["after_second_call"] <= min(budget, figures["after_call"] + PRICES_MIB)
    assert min(r["longest_stall_ms"] for r in rounds) <= STALL_MS
    assert figures["cost"] > 0


async def one_call(provider: str, url: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.gateway.models.one_call",
        provider,
        url,
        KEY,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    figures: dict[str, Any] = json.loads(out)
    return figures


def test_the_stand_in_runs_as_a_process_with_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"text": "from the file"}]))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.standins.models", "--script", str(script)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        try:
            answer = post(told["url"], told["key"])
        finally:
            process.terminate()
    assert answer["content"] == [{"type": "text", "text": "from the file"}]
    assert process.returncode == 0


def post(url: str, key: str) -> dict[str, Any]:
    import urllib.request

    body = {"model": "claude-opus-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    request = urllib.request.Request(
        f"{url}/v1/messages",
        json.dumps(body).encode(),
        {"x-api-key": key, "anthropic-version": "2026-10-21", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        found: dict[str, Any] = json.load(response)
        return found
