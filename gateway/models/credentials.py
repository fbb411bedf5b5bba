"""Which providers there are, and what each needs before it can be asked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.models.offline import MODELS as OFFLINE_MODELS
from protocols.decoding import nearest
from runtime.config import Cluster, split_model
from runtime.config_providers import ProviderTable, openai_like
from runtime.oauth.settings import OAuthError, settings_for
from runtime.secrets import API_KEY, SecretError, Secrets

if TYPE_CHECKING:
    from gateway.models.accounts import AccountTokens

SUPPORTED = ("anthropic", "google", "openai", "offline")
OFFLINE = "offline"
NOT_SIGNED_IN = "not_signed_in"
"""Code of the problem that a person mends by signing in."""
LOCAL_KEY = "local"
"""What a server of one's own gets that wants no key."""
_ELSEWHERE = {"gemini": "google", "claude": "anthropic", "gpt": "openai", "codex": "openai"}
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

    def __init__(
        self,
        secrets: Secrets,
        cluster: Cluster,
        agent: str,
        *,
        clock: Callable[[], float] = time.time,
        learn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`learn` is told secrets that come into being while the gateway runs."""
        self._secrets = secrets
        self._home = cluster.home
        self._tables = cluster.file.providers
        self._own = openai_like(self._tables)
        self._agent = agent
        self._clock = clock
        self._learn = learn
        self._account: AccountTokens | None = None
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
            except (OSError, SecretError):
                known = stamps, None
            self._read[provider] = known
        stored = known[1]
        if stored is None and provider != "google" and self.table(provider).base_url:
            return LOCAL_KEY
        return stored

    def speaks_openai(self, provider: str) -> bool:
        return provider == "openai" or provider in self._own

    def account(self, provider: str) -> AccountTokens | None:
        """The account that answers for a provider without a key, if one is signed in. Raises OAuthError.

        Its tokens go to the account's own server and to no `base_url` of the provider's.
        """
        if provider != "openai" or self.key(provider) is not None:
            return None
        if self._account is None:
            from gateway.models.accounts import AccountTokens

            settings = settings_for(provider, self.table(provider).oauth)
            self._account = AccountTokens(self._home, settings, clock=self._clock, learn=self._learn)
        return self._account if self._account.signed_in else None

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
        if provider not in SUPPORTED and provider not in self._own:
            known = (*SUPPORTED, *self._own)
            close = _ELSEWHERE.get(provider.lower()) or nearest(provider, known)
            hint = f"did you mean {close}/{name}?" if close else f"known: {', '.join(known)}"
            return Problem(400, "unknown_provider", f"there is no provider {provider!r}; {hint}")
        if self.key(provider) is not None:
            return None
        try:
            account = self.account(provider)
        except OAuthError as error:
            return Problem(409, "bad_config", str(error))
        if account is not None:
            problem = account.problem()
            return Problem(409, NOT_SIGNED_IN, problem) if problem is not None else None
        other = f", or `atomizer login {provider}`" if provider == "openai" else ""
        return Problem(409, "no_key", f"no key: run `atomizer secrets set {provider}`{other}")

    def notice(self, provider: str) -> str:
        """What to know about a provider that can be asked."""
        try:
            account = self.account(provider)
        except OAuthError:
            return ""
        return account.notice() if account is not None else ""


def _stamp(path: Path) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
