"""Secrets: one 0600 file each under `secrets/<owner>/`, and the register of token hashes beside them.

A token's owner is who calls with it: an agent, `operator` or `viewer`. Gateways know the others by hash only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets as random
from collections.abc import Iterable
from pathlib import Path

import msgspec

from protocols.errors import AtomizerError
from runtime.home import Home, write_atomic

TOKEN = "token"
API_KEY = "api-key"
PROVIDERS = ("anthropic", "google", "openai")
"""Providers that need a key, as owners of `api-key`."""
SERVICES = ("brave",)
"""Other services with a key, stored likewise."""

_WORD = re.compile(r"[a-z][a-z0-9-]*")


class SecretError(AtomizerError):
    """A secret that is missing, or a name that cannot name one."""


class Secrets:
    """The secrets of one home. Values never appear in a repr, a log or an error."""

    def __init__(self, home: Home) -> None:
        self._folder = home.secrets

    def path(self, owner: str, name: str) -> Path:
        for word in (owner, name):
            if not _WORD.fullmatch(word):
                raise SecretError(f"{word!r} cannot name a secret: use lower-case letters, digits and hyphens")
        return self._folder / owner / name

    def get(self, owner: str, name: str) -> str | None:
        """The secret's text without surrounding white space, or None; raises SecretError if it is none, or OSError."""
        path = self.path(owner, name)
        try:
            return path.read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            mend = "run `atomizer init`" if name == TOKEN else "store it anew with `atomizer secrets set`"
            raise SecretError(f"{path} is no text; remove it and {mend}") from None

    def set(self, owner: str, name: str, value: str) -> None:
        """Store `value` in one step with mode 0600; raises SecretError if it is empty or not one line of text."""
        value = value.strip()
        if not value or not value.isprintable():
            raise SecretError(
                f"the secret {owner}/{name} must be one line of text that is not empty; nothing was changed"
            )
        path = self.path(owner, name)
        for folder in (self._folder, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
            os.chmod(folder, 0o700)
        write_atomic(path, value + "\n", mode=0o600)

    def remove(self, owner: str, name: str) -> bool:
        """Delete a secret; false if there was none."""
        try:
            self.path(owner, name).unlink()
        except FileNotFoundError:
            return False
        return True

    def list(self) -> list[tuple[str, str]]:
        """(owner, name) of every secret, sorted; never a value."""
        if not self._folder.is_dir():
            return []
        return sorted(
            (owner.name, file.name)
            for owner in self._folder.iterdir()
            if owner.is_dir()
            for file in owner.iterdir()
            if not file.name.startswith(".")
        )

    def api_key(self, provider: str, agent: str | None = None) -> str | None:
        """The key for `provider`: the agent's own (`secrets/<agent>/<provider>`) before the cluster's."""
        own = self.get(agent, provider) if agent else None
        return own or self.get(provider, API_KEY)

    def token(self, owner: str) -> str:
        """The token of `owner`; raises SecretError."""
        token = self.get(owner, TOKEN)
        if token is None:
            raise SecretError(f"no token for {owner!r}; known owners: {', '.join(self.callers().values()) or 'none'}")
        return token

    def ensure_tokens(self, owners: Iterable[str]) -> None:
        """Give each owner a token and register its hash; owners who have one keep it.

        A damaged register is made anew from the tokens that are there. Raises SecretError if two owners share one.
        """
        try:
            register = self._register()
        except SecretError:
            register = {owner: token_hash(self.token(owner)) for owner, name in self.list() if name == TOKEN}
        for owner in owners:
            token = self.get(owner, TOKEN)
            if token is None:
                token = random.token_urlsafe(32)
                self.set(owner, TOKEN, token)
            register[owner] = token_hash(token)
        owner_of: dict[str, str] = {}
        for owner, digest in register.items():
            if (other := owner_of.setdefault(digest, owner)) != owner:
                raise SecretError(
                    f"{other} and {owner} have the same token, so one could act as the other; "
                    f"remove {self.path(owner, TOKEN)} and run `atomizer init`"
                )
        self._save_register(register)

    def forget(self, owner: str) -> None:
        """Remove `owner` from the register: its token stops working everywhere when gateways reload."""
        register = self._register()
        register.pop(owner, None)
        self._save_register(register)

    def callers(self) -> dict[str, str]:
        """Hash -> owner, for a gateway to know its callers by."""
        return {digest: owner for owner, digest in self._register().items()}

    def _register(self) -> dict[str, str]:
        try:
            return msgspec.json.decode((self._folder / "tokens.json").read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except msgspec.MsgspecError:
            raise SecretError(f"{self._folder / 'tokens.json'} is damaged; run `atomizer init` to rebuild it") from None

    def _save_register(self, register: dict[str, str]) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        os.chmod(self._folder, 0o700)
        write_atomic(self._folder / "tokens.json", json.dumps(register, indent=1, sort_keys=True) + "\n", mode=0o600)


def token_hash(token: str) -> str:
    """SHA-256 of a token, hex. Tokens carry 256 random bits, so no salt and no slow hash are needed."""
    # A header may hold bytes that are no text; they come as lone surrogates.
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


_SHAPES = re.compile(
    r"sk-ant-[\w-]{8,}|sk-[\w-]{20,}|AIza[\w-]{20,}|xox[abp]-[\w-]{10,}"
    r"|(?i:bearer\s+)[\w.~+/=-]{16,}|[MN][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,}"
)
_TOKEN = re.compile(r"(?<![\w-])[\w-]{43}(?![\w-])")
"""What `ensure_tokens` makes: 32 random bytes in URL-safe base64."""


class Redactor:
    """Replaces secrets in text: the values it was told, tokens whose hash it knows, and well-known kinds of key."""

    def __init__(self, values: Iterable[str] = (), token_hashes: Iterable[str] = ()) -> None:
        self._values: list[str] = []
        self._hashes: frozenset[str] = frozenset()
        self.know(values, token_hashes)

    def know(self, values: Iterable[str], token_hashes: Iterable[str] = ()) -> None:
        """Recognise these as well; what was known before stays known."""
        self._values = sorted({v for v in (*self._values, *values) if len(v) >= 8}, key=len, reverse=True)
        self._hashes |= frozenset(token_hashes)

    def __call__(self, text: str) -> str:
        for value in self._values:
            if value in text:
                text = text.replace(value, "[redacted]")
        if self._hashes:
            text = _TOKEN.sub(self._if_known, text)
        return _SHAPES.sub("[redacted]", text)

    def so_far(self, text: str) -> str:
        """What may be shown of a text that still grows: not its last word, which may be half a secret, nor what may be
        the beginning of a secret of several words or lines."""
        end = max(text.rfind(" "), text.rfind("\n")) + 1
        for value in self._values:
            near = max(0, end - len(value))
            at = text.rfind(value[:8], near, end)
            while at >= 0:
                if at + len(value) > end and value.startswith(text[at : at + len(value)]):
                    end = at
                at = text.rfind(value[:8], near, at)
        return self(text[:end])

    def _if_known(self, found: re.Match[str]) -> str:
        return "[redacted]" if token_hash(found.group()) in self._hashes else found.group()
