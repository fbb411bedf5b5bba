"""Which providers there are, and what each needs before it can be asked."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from gateway.models.offline import MODELS as OFFLINE_MODELS
from protocols.decoding import nearest
from runtime.config import Cluster, split_model
from runtime.config_providers import ProviderTable, openai_like
from runtime.secrets import API_KEY, Secrets

SUPPORTED = ("anthropic", "google", "offline")
OFFLINE = "offline"
LOCAL_KEY = "local"
"""What a server of one's own gets that wants no key."""
_ELSEWHERE = {"gemini": "google", "claude": "anthropic"}
"""What people write for a provider."""


_Stamp = tuple[int, int, int] | None
"""A file as it was when it was read: another inode, time or size is another file."""


class Problem(msgspec.Struct, frozen=True):
    """Why a model cannot be asked: a sentence, with the status and code of the refusal."""

    status: int
    code: str
    message: str


class Credentials:
    """The keys and addresses of one agent's providers. A key works as soon as it is stored: its file is watched."""

    def __init__(self, secrets: Secrets, cluster: Cluster, agent: str) -> None:
        self._secrets = secrets
        self._tables = cluster.file.providers
        self._agent = agent
        self._read: dict[str, tuple[list[_Stamp], str | None]] = {}

    def table(self, provider: str) -> ProviderTable:
        return self._tables.get(provider) or ProviderTable()

    def key(self, provider: str) -> str | None:
        """The provider's key; a configured address of one's own does without. None if it cannot be read."""
        files = [self._secrets.path(self._agent, provider), self._secrets.path(provider, API_KEY)]
        stamps = [_stamp(path) for path in files]
        known = self._read.get(provider)
        if known is None or known[0] != stamps:
            try:
                known = stamps, self._secrets.api_key(provider, self._agent)
            except (OSError, UnicodeDecodeError):
                known = stamps, None
            self._read[provider] = known
        stored = known[1]
        if stored is None and provider == "anthropic" and self.table(provider).base_url:
            return LOCAL_KEY
        return stored

    def problem(self, model: str) -> Problem | None:
        """Why `model` cannot be asked, or None."""
        try:
            provider, name = split_model(model)
        except ValueError as error:
            return Problem(400, "bad_model", str(error))
        if provider == OFFLINE:
            if name in OFFLINE_MODELS:
                return None
            return Problem(400, "unknown_model", f"{OFFLINE} has no model {name!r}; known: {', '.join(OFFLINE_MODELS)}")
        if provider == "openai":
            known = ", ".join(SUPPORTED)
            return Problem(409, "unsupported_provider", f"{provider} is not supported in this version; known: {known}")
        if provider not in SUPPORTED:
            close = _ELSEWHERE.get(provider.lower()) or nearest(provider, SUPPORTED)
            hint = f"did you mean {close}/{name}?" if close else f"known: {', '.join(SUPPORTED)}"
            return Problem(400, "unknown_provider", f"there is no provider {provider!r}; {hint}")
        if self.key(provider) is None:
            return Problem(409, "no_key", f"no key: run `atomizer secrets set {provider}`")
        return None


def _stamp(path: Path) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
