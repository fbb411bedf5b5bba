"""The access tokens of an account that `atomizer login` signed in: refreshed in time, by one process of the host."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Callable

from gateway.models.openai import Bearer
from gateway.models.provider import ErrorKind, ProviderError
from runtime.home import Home
from runtime.oauth.credential import Credential, CredentialFile, NotSignedIn
from runtime.oauth.refresh import hash_of, refresh_apart
from runtime.oauth.settings import OAuthError, OAuthSettings

log = logging.getLogger("gateway.models")

PAUSE_SECONDS = 30.0
"""After a refresh that failed, a token that still works is used for so long before the next one."""


class AccountTokens:
    """One account's tokens, for all runs of a gateway. The file is watched: signing in counts at once."""

    def __init__(
        self, home: Home, settings: OAuthSettings, *, clock: Callable[[], float], learn: Callable[[str], None]
    ) -> None:
        """`learn` is told each secret that is going to be sent, so that it never appears in a log."""
        self._home = home
        self.settings = settings
        self._file = CredentialFile(home, settings.provider)
        self._clock = clock
        self._learn = learn
        self._refreshing = asyncio.Lock()
        self._paused_until = 0.0
        self._known: tuple[tuple[int, int, int], Credential | None] | None = None

    @property
    def signed_in(self) -> bool:
        return self._file.path.exists()

    def problem(self) -> str | None:
        """Why no request can be made, or None. Asks nobody."""
        try:
            found = self._read()
        except OAuthError as error:
            return str(error)
        if found is None:
            return f"nobody is signed in: run `atomizer login {self._file.provider}`"
        return found.refused if found.refused and not found.works(self._clock()) else None

    def notice(self) -> str:
        """What to know about an account that works still."""
        try:
            found = self._read()
        except OAuthError:
            return ""
        return f"the account's last access token still works, but {found.refused}" if found and found.refused else ""

    async def bearer(self, rejected: str | None = None) -> Bearer:
        """A token that works, refreshed if it is time; raises ProviderError (auth: a person must sign in)."""
        found = self._usable(rejected)
        if found is None:
            async with self._refreshing:
                found = self._usable(rejected) or await self._renew(rejected)
        self._learn(found.access_token)
        return Bearer(found.access_token, found.account_id)

    def _usable(self, rejected: str | None) -> Credential | None:
        """The credential on disk, if nothing has to be done before its token is sent."""
        try:
            found = self._read()
        except OAuthError as error:
            raise ProviderError(ErrorKind.AUTH, str(error)) from None
        now = self._clock()
        if found is None or not found.works(now) or _is(found, rejected):
            return None
        return None if found.due(now) and now >= self._paused_until else found

    async def _renew(self, rejected: str | None) -> Credential:
        failure: ProviderError | None = None
        try:
            sent = hash_of(rejected) if rejected else ""
            await asyncio.to_thread(refresh_apart, self._home, self.settings, rejected=sent)
        except NotSignedIn as error:
            failure = ProviderError(ErrorKind.AUTH, str(error))
        except OAuthError as error:
            self._paused_until = self._clock() + PAUSE_SECONDS
            failure = ProviderError(ErrorKind.NETWORK, f"the account's token was not refreshed: {error}")
        try:
            found = self._read()
        except OAuthError as error:
            raise ProviderError(ErrorKind.AUTH, str(error)) from None
        if found is not None and found.works(self._clock()) and not _is(found, rejected):
            if failure is not None:
                log.warning("the account's access token still works, but: %s", failure)
            return found
        if failure is None:
            failure = ProviderError(ErrorKind.AUTH, "the server gave an access token that has already ended")
        raise failure

    def _read(self) -> Credential | None:
        try:
            status = os.stat(self._file.path)
        except OSError:
            return None
        stamp = status.st_ino, status.st_mtime_ns, status.st_size
        if self._known is None or self._known[0] != stamp:
            self._known = stamp, self._file.read()
        return self._known[1]


def _is(credential: Credential, rejected: str | None) -> bool:
    return rejected is not None and hmac.compare_digest(credential.access_token.encode(), rejected.encode())
