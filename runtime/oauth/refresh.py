"""Refreshing the shared credential: once for the whole host, and by a process that outlives the one that wants it.

A refresh token is spent by the server's answer. A process killed between that answer and the write would lose the
account, so the refresh is made by a small process of its own, `python -m runtime.oauth`, in a session of its own: the
gateway may be killed at any point meanwhile. For its own death there is the fence, `pending_since`, on disk before the
call: whoever comes next knows that the token may be spent, tries it once (a server may allow a short grace), and if
the server says no, writes down that a person must sign in, and nobody asks again.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import msgspec

from runtime.home import Home, explain_os_error
from runtime.oauth import endpoint
from runtime.oauth.credential import Credential, CredentialFile, NotSignedIn, of_tokens
from runtime.oauth.settings import OAuthError, OAuthSettings

HELPER_SECONDS = 90.0
"""Longer than the lock's wait and the endpoint's answer together."""

KEEP_TRIES = 20
KEEP_PAUSE_SECONDS = 0.5


class Order(msgspec.Struct):
    """What the helper is told, on stdin."""

    home: str
    settings: OAuthSettings
    rejected: str = ""
    """SHA-256 of an access token that a server refused although it should still work."""


class Report(msgspec.Struct):
    """What the helper says, on stdout; never a token."""

    ok: bool
    sign_in: bool = False
    """A person has to sign in; another try would be in vain."""
    message: str = ""


def refresh(
    file: CredentialFile, settings: OAuthSettings, *, rejected: str = "", clock: Callable[[], float] = time.time
) -> None:
    """Refresh the credential unless another process just did; raises NotSignedIn, OAuthError, OSError.

    `rejected` is the hash of an access token that no longer works: it is replaced even before its time.
    """
    with file.locked():
        before = file.read()
        if before is None:
            raise NotSignedIn(f"nobody is signed in: run `atomizer login {file.provider}`")
        if before.refused:
            raise NotSignedIn(before.refused)
        if not before.due(clock()) and (not rejected or hash_of(before.access_token) != rejected):
            return
        replayed = before.pending_since is not None
        file.write(msgspec.structs.replace(before, pending_since=before.pending_since or clock()))
        try:
            answer = endpoint.refresh(settings, before.refresh_token)
        except endpoint.Refused as error:
            why = _explain(error, replayed, file.provider)
            file.write(msgspec.structs.replace(before, pending_since=None, refused=why))
            raise NotSignedIn(why) from None
        except endpoint.NoAnswer as error:
            if not error.maybe_spent and not replayed:
                file.write(msgspec.structs.replace(before, pending_since=None))
            raise
        _keep(file, of_tokens(answer, clock(), before))


def _keep(file: CredentialFile, credential: Credential) -> None:
    """Write what exists nowhere else; a full disk may have room again in a moment. Raises OSError."""
    for _ in range(KEEP_TRIES - 1):
        try:
            return file.write(credential)
        except OSError:
            time.sleep(KEEP_PAUSE_SECONDS)
    return file.write(credential)


def _explain(error: endpoint.Refused, replayed: bool, provider: str) -> str:
    mend = f"run `atomizer login {provider}`"
    if replayed:
        return (
            "a process was killed, or cut off, between the server's answer and the write of the new token, and the "
            f"server takes the old one no more ({error}); {mend}"
        )
    if "reused" in error.code or "already been used" in str(error):
        return f"another program has used this account's refresh token ({error}); {mend}"
    return f"the server no longer takes the account's token ({error}); {mend}"


def hash_of(token: str) -> str:
    from runtime.secrets import token_hash

    return token_hash(token)


def refresh_apart(home: Home, settings: OAuthSettings, *, rejected: str = "") -> None:
    """`refresh` in a process of its own, which goes on if this one dies. Blocks; raises NotSignedIn, OAuthError."""
    order = msgspec.json.encode(Order(str(home.root), settings, rejected))
    try:
        helper = subprocess.Popen(
            [sys.executable, "-P", "-m", "runtime.oauth"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise OAuthError(explain_os_error(error, "the token cannot be refreshed")) from None
    try:
        said, _ = helper.communicate(order, timeout=HELPER_SECONDS)
        report = msgspec.json.decode(said, type=Report)
    except subprocess.TimeoutExpired:  # left to itself: killing it is what could lose the token
        raise OAuthError(f"the token was not refreshed within {HELPER_SECONDS:.0f} s") from None
    except (msgspec.MsgspecError, OSError):
        raise OAuthError("the process that refreshes the token ended without a word") from None
    if report.ok:
        return
    raise NotSignedIn(report.message) if report.sign_in else OAuthError(report.message)


def read_usable(file: CredentialFile, now: float) -> Credential:
    """The credential, with an access token that can be sent; raises NotSignedIn, OAuthError."""
    found = file.read()
    if found is None:
        raise NotSignedIn(f"nobody is signed in: run `atomizer login {file.provider}`")
    if not found.works(now):
        if found.refused:
            raise NotSignedIn(found.refused)
        raise OAuthError("the access token has ended and was not refreshed")
    return found
