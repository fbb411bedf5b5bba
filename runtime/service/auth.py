"""Who calls: tokens compared by hash in constant time, and a throttle for addresses that guess."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

from protocols.errors import ProtocolError
from runtime.secrets import token_hash

MAX_FAILURES = 20
"""Failures one address may make within WINDOW_SECONDS."""
WINDOW_SECONDS = 60.0
_MAX_ADDRESSES = 2048


class Auth:
    """Knows the callers of one cluster by the hash of their token."""

    def __init__(self, callers: Mapping[str, str], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`callers`: hash -> owner."""
        self._callers = dict(callers)
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def reload(self, callers: Mapping[str, str]) -> None:
        self._callers = dict(callers)

    def identify(self, headers: Mapping[str, str], address: str) -> str:
        """The owner of the request's token; raises ProtocolError 401, or 429 for an address that keeps guessing.

        A valid token is never throttled.
        """
        token = self._token(headers)
        if token:
            digest = token_hash(token)
            owner = None
            for known, name in self._callers.items():
                if hmac.compare_digest(known, digest):
                    owner = name
            if owner is not None:
                return owner
        wait = self._record_failure(address)
        if wait is not None:
            raise ProtocolError(
                429,
                "too_many_failures",
                f"more than {MAX_FAILURES} failed attempts in {WINDOW_SECONDS:.0f} s from {address}; "
                f"wait {wait} s or send a valid token",
                headers={"Retry-After": str(wait)},
            )
        problem = "the token is not known here" if token else "no token"
        raise ProtocolError(
            401,
            "unauthorized",
            f"{problem}; send `Authorization: Bearer TOKEN` (`atomizer token operator` prints one)",
            headers={"WWW-Authenticate": "Bearer"},
        )

    @staticmethod
    def _token(headers: Mapping[str, str]) -> str | None:
        value = headers.get("Authorization")
        if value is not None:
            scheme, _, token = value.partition(" ")
            return token.strip() if scheme.lower() == "bearer" else None
        return headers.get("X-Atomizer-Token")

    def _record_failure(self, address: str) -> int | None:
        """Count one failure; the seconds to wait if there were too many."""
        now = self._clock()
        times = self._failures.setdefault(address, deque(maxlen=MAX_FAILURES + 1))
        self._failures.move_to_end(address)
        while len(self._failures) > _MAX_ADDRESSES:
            self._failures.popitem(last=False)
        times.append(now)
        while times and times[0] <= now - WINDOW_SECONDS:
            times.popleft()
        if len(times) <= MAX_FAILURES:
            return None
        return max(1, int(times[0] + WINDOW_SECONDS - now) + 1)
