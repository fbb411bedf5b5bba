"""A stand-in for the model servers as a process of its own, and a home whose agents ask it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec

from runtime.secrets import API_KEY, Secrets
from tests.conftest import ClusterHome
from tests.standins.models.script import Reply

ROOT = Path(__file__).resolve().parent.parent.parent


class ModelProcess:
    """`python -m tests.standins.models` with a script."""

    def __init__(self, folder: Path, *replies: Reply) -> None:
        script = folder / "script.json"
        script.write_bytes(msgspec.json.encode(list(replies)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.standins.models", "--script", str(script)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        said = json.loads(self._process.stdout.readline())
        self.url, self.key = said["url"], said["key"]

    def requests(self) -> list[dict[str, Any]]:
        """Everything asked so far."""
        with urlopen(f"{self.url}/__standin/requests", timeout=10) as answer:
            return list(json.load(answer))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()


def use_models(home: ClusterHome, server: ModelProcess) -> None:
    """Leave the offline profile for the stand-in, with a key for each provider."""
    path = home.home.cluster_toml
    text = path.read_text().replace('profile = "offline"', 'profile = "live"')
    path.write_text(
        f'{text}\n[providers.anthropic]\nbase_url = "{server.url}"\n[providers.google]\nbase_url = "{server.url}"\n'
        f'[providers.openai]\nbase_url = "{server.url}/v1"\napi = "responses"\n'
    )
    for provider in ("anthropic", "google", "openai"):
        Secrets(home.home).set(provider, API_KEY, server.key)
