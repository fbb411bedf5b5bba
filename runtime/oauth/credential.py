"""The one credential of a signed-in account: `secrets/<provider>/oauth.json`, shared by every process of the home.

Refresh tokens are single-use, so the file has one lock beside it, and whoever holds it reads the file again first.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime
import json
import os
from collections.abc import Iterator
from typing import Any

import msgspec

from runtime.home import Home, write_atomic
from runtime.oauth.settings import OAuthError

FILE = "oauth.json"
ADVISORY_SECONDS = 300.0
"""So long before its end an access token is refreshed, though it still works."""
MARGIN_SECONDS = 30.0
"""An access token with less left than this is not sent any more."""
LOCK_SECONDS = 60.0
"""Longest wait for whoever refreshes; the token endpoint is given less than half of it."""


class NotSignedIn(OAuthError):
    """There is no credential, or the server takes it no more: a person has to sign in."""


class Credential(msgspec.Struct, frozen=True):
    access_token: str
    refresh_token: str
    obtained_at: float
    """Unix seconds."""
    expires_at: float | None = None
    """When the access token ends, Unix seconds; None if nobody said."""
    account_id: str = ""
    pending_since: float | None = None
    """A refresh was begun then and its outcome was never written: the refresh token may be spent."""
    refused: str = ""
    """Why the server takes the refresh token no more. Nothing asks it again."""

    def __repr__(self) -> str:
        return f"Credential(expires_at={self.expires_at}, refused={self.refused!r})"

    def works(self, now: float) -> bool:
        """Whether the access token can be sent."""
        if self.expires_at is None:
            return not self.refused
        return self.expires_at - now > MARGIN_SECONDS

    def due(self, now: float) -> bool:
        """Whether it is time to refresh, and not in vain."""
        return not self.refused and self.expires_at is not None and self.expires_at - now <= ADVISORY_SECONDS


class CredentialFile:
    """Reads and replaces the file in one step each; `locked` keeps every other process of the host out."""

    def __init__(self, home: Home, provider: str) -> None:
        self.provider = provider
        self.path = home.secrets / provider / FILE

    def read(self) -> Credential | None:
        """Raises OAuthError if the file is damaged or cannot be read."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Credential)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OAuthError(f"cannot read {self.path}: {error.strerror}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise OAuthError(f"{self.path} is damaged; run `atomizer login {self.provider}`") from None

    def write(self, credential: Credential) -> None:
        """Durably, mode 0600; raises OSError."""
        self._make_folder()
        write_atomic(self.path, msgspec.json.format(msgspec.json.encode(credential), indent=1) + b"\n", mode=0o600)

    def remove(self) -> bool:
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        return True

    @contextlib.contextmanager
    def locked(self, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Alone on this host; raises OAuthError if another process keeps it. Ends with the process, however it ends."""
        import filelock

        self._make_folder()
        lock = filelock.FileLock(self.path.with_name(f".{FILE}.lock"), timeout=seconds, mode=0o600)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise OAuthError(f"another process has been refreshing {self.path} for {seconds:.0f} s") from None
        try:
            yield
        finally:
            lock.release()

    def _make_folder(self) -> None:
        for folder in (self.path.parent.parent, self.path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
            os.chmod(folder, 0o700)


def of_tokens(answer: dict[str, Any], now: float, before: Credential | None = None) -> Credential:
    """The credential in a token endpoint's answer; what it leaves out stays as `before`. Raises OAuthError."""
    access = answer.get("access_token")
    refresh = answer.get("refresh_token") or (before.refresh_token if before else None)
    if not (isinstance(access, str) and access and isinstance(refresh, str) and refresh):
        raise OAuthError("the token endpoint answered without an access token and a refresh token")
    lasts = answer.get("expires_in")
    if isinstance(lasts, int | float) and not isinstance(lasts, bool):
        expires: float | None = now + lasts
    else:
        expires = _number(claims(access).get("exp"))
    account = _account(answer.get("id_token")) or _account(access) or (before.account_id if before else "")
    return Credential(access, refresh, obtained_at=now, expires_at=expires, account_id=account)


def of_auth_json(data: bytes, now: float) -> Credential:
    """The credential in the Codex CLI's `auth.json`; raises OAuthError."""
    try:
        document = json.loads(data)
        tokens = document["tokens"]
        access, refresh = tokens["access_token"], tokens["refresh_token"]
        assert isinstance(access, str)
        assert isinstance(refresh, str)
        assert access
        assert refresh
    except (ValueError, KeyError, TypeError, AssertionError):
        raise OAuthError(
            'this is no auth.json of a signed-in account: expected {"tokens": {"access_token", "refresh_token", ...}}'
        ) from None
    account = tokens.get("account_id") or _account(tokens.get("id_token")) or _account(access)
    return Credential(
        access,
        refresh,
        obtained_at=_time(document.get("last_refresh")) or now,
        expires_at=_number(claims(access).get("exp")),
        account_id=account if isinstance(account, str) else "",
    )


def claims(token: Any) -> dict[str, Any]:
    """What a JWT says, unchecked: it came from the server that made it. Empty if it is none."""
    try:
        body = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (AttributeError, IndexError, ValueError, binascii.Error):
        return {}
    return found if isinstance(found, dict) else {}


def _account(token: Any) -> str:
    about = claims(token).get("https://api.openai.com/auth")
    account = about.get("chatgpt_account_id") if isinstance(about, dict) else None
    return account if isinstance(account, str) else ""


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _time(text: Any) -> float | None:
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return None
