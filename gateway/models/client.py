"""What the providers over an SDK share: how a client is opened and closed, and what an error from it means."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

from gateway.models.catalogue import Catalogue
from gateway.models.provider import ErrorKind, ProviderError
from gateway.models.sdk import load_sdk
from protocols.runs import Usage
from runtime.secrets import Redactor


class SdkProvider:
    """One account at one address. Its client is opened by the first call, and its SDK imported then, in a thread."""

    sdk: ClassVar[str]
    """The SDK's module."""
    transports: ClassVar[tuple[str, ...]]
    """Packages whose errors, while no status came, mean that the connection failed."""

    def __init__(
        self,
        name: str,
        key: str | None,
        base_url: str | None,
        usual_url: str,
        catalogue: Catalogue | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`usual_url` is the provider's own address, where no `base_url` is given; `key` appears in no error."""
        self.name = name
        self._base_url = (base_url or usual_url).rstrip("/")
        self._official = base_url is None
        self._catalogue = catalogue or Catalogue.shipped()
        self._clock = clock
        self._redact = Redactor([key] if key is not None else [])
        self._client: Any = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await self._end(client)

    async def _open(self) -> Any:
        async with self._opening:
            if self._client is None:
                sdk = await load_sdk(self.sdk, self._rehearse)
                self._client = await asyncio.to_thread(self._make, sdk)
        return self._client

    def _make(self, sdk: Any) -> Any:
        """A client; made in a thread."""
        raise NotImplementedError

    def _rehearse(self, sdk: Any) -> None:
        """One answer from nowhere, in that thread: SDKs load parts and build types on first use, which takes 0.1 s."""
        raise NotImplementedError

    async def _end(self, client: Any) -> None:
        await client.close()

    def _status_of(self, error: Any, name: str) -> ProviderError | None:
        """The provider's own words, if they are what came; `name` is the model's."""
        raise NotImplementedError

    def _answered(self, asked: str, reported: Any) -> str:
        """The model as it answered: what the provider says, unless that is the one asked for with its date."""
        if not self._official or not isinstance(reported, str) or not reported or reported.startswith(asked):
            reported = asked
        return f"{self.name}/{reported}"

    @contextlib.asynccontextmanager
    async def _within(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise ProviderError(ErrorKind.NETWORK, f"{self._base_url}: no answer for {seconds:g} s") from None

    def _explain(
        self, error: Exception, model: str, reading: bool, used: Callable[[], Usage | None] = lambda: None
    ) -> ProviderError:
        """What went wrong, classified. SDKs let errors of other packages through.

        `reading`: the answer had begun; `used()`: what of it the provider had counted.
        """
        told = self._classify(error, model, reading)
        told.usage = used()
        return told

    def _classify(self, error: Exception, model: str, reading: bool) -> ProviderError:
        name = f"{self.name}/{model}"
        if isinstance(error, ProviderError):
            error.model = name
            error.args = (self._redact(str(error)),)
            return error
        told = self._status_of(error, name)
        if told is not None:
            return told
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in self.transports:
            cause = error.__cause__ if error.__cause__ and str(error.__cause__) else error
            what = self._redact(str(getattr(cause, "os_error", cause))) or type(error).__name__
            return ProviderError(ErrorKind.NETWORK, f"{self._base_url}: {what}", model=name)
        if isinstance(error, ImportError):
            return ProviderError(ErrorKind.CONFIG, f"its SDK cannot be imported: {error}", model=name)
        kind = ErrorKind.NETWORK if reading else ErrorKind.INVALID
        what = "an answer that cannot be read" if reading else "a request that the SDK refused"
        return ProviderError(kind, self._redact(f"{what}: {type(error).__name__}: {error}")[:300], model=name)
