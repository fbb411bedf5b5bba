"""Where `web_fetch` may connect: decided by address, after name resolution, for each connection anew."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from protocols.errors import AtomizerError
from runtime.config_reach import WebTable, parse_private

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 15.0
TOTAL_SECONDS = 45.0
"""One request with its body; redirects count anew."""
MAX_URL = 4000

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Host name -> addresses; raises OSError."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Refused(AtomizerError, OSError):
    """The address is none that may be reached; says which and why. An OSError, so that it passes through aiohttp."""


class WebGuard:
    """The rules of `[web]`, as checks of a URL and of an address."""

    def __init__(self, table: WebTable, *, lookup: Lookup | None = None) -> None:
        self._ports = frozenset(table.ports)
        self._private = [parse_private(entry) for entry in table.allow_private]
        self._allow = [host.lower() for host in table.allow_hosts]
        self._deny = [host.lower() for host in table.deny_hosts]
        self._lookup = lookup or look_up

    def check_url(self, text: str | URL) -> URL:
        """The URL without its fragment, if its form may be fetched; raises Refused. Its name is not resolved here."""
        if len(str(text)) > MAX_URL:
            raise Refused(f"the URL is longer than {MAX_URL} characters")
        try:
            url = URL(text)
            host, port = url.host, url.port
        except (ValueError, TypeError):
            raise Refused(f"{_shown(text)} is no URL") from None
        if url.scheme not in ("http", "https") or not host:
            raise Refused(f"{_shown(text)}: only http:// and https:// addresses can be fetched")
        if url.user is not None or url.password is not None:
            raise Refused("a URL with a name or password in it is not fetched")
        if port not in self._ports and not any(allowed == port for _, allowed in self._private):
            raise Refused(f"port {port} is not open to web_fetch; it may use {_listed(self._ports)} ([web] ports)")
        name = host.lower().rstrip(".")
        if any(_matches(name, rule) for rule in self._deny):
            raise Refused(f"{name} is closed to web_fetch ([web] deny_hosts)")
        if self._allow and not any(_matches(name, rule) for rule in self._allow):
            raise Refused(f"{name} is not among the hosts web_fetch may reach ([web] allow_hosts)")
        literal = _address(host)
        if literal is not None:
            self.check_address(literal, port or 0)
        return url.with_fragment(None)

    def check_address(self, address: Address, port: int) -> None:
        """Raises Refused unless a connection to `address` is allowed."""
        for network, only in self._private:
            if address in network and (port == only if only is not None else port in self._ports):
                return
        if not is_public(address):
            raise Refused(
                f"{address} is no public address; of the others web_fetch reaches those in [web] allow_private only"
            )
        if port not in self._ports:
            raise Refused(f"port {port} of {address} is not open to web_fetch ([web] ports)")

    def session(self) -> ClientSession:
        """A client that can connect only where `check_address` allows, without cookies and without a proxy."""
        connector = TCPConnector(
            resolver=_GuardedResolver(self, self._lookup),
            use_dns_cache=False,
            socket_factory=self._open_socket,
            force_close=True,
            limit=4,
        )
        timeout = ClientTimeout(total=TOTAL_SECONDS, connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        return ClientSession(connector=connector, timeout=timeout, cookie_jar=DummyCookieJar(), trust_env=False)

    def _open_socket(self, info: Any) -> socket.socket:
        """The last gate: whatever was resolved or written, this is the address that would be connected to."""
        family, kind, proto, _, target = info
        address = _address(str(target[0]))
        if address is None:
            raise Refused(f"{target[0]!r} is no address")
        self.check_address(address, int(target[1]))
        return socket.socket(family, kind, proto)


class _GuardedResolver(AbstractResolver):
    """Resolves a name once and hands on the allowed addresses only: what was checked is what is connected to."""

    def __init__(self, guard: WebGuard, lookup: Lookup) -> None:
        self._guard = guard
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        allowed: list[ResolveResult] = []
        refusal: Refused | None = None
        for text in await self._lookup(host):
            address = _address(text)
            if address is None:
                continue
            try:
                self._guard.check_address(address, port)
            except Refused as error:
                refusal = Refused(f"{host} leads to {error}")
                continue
            allowed.append(
                ResolveResult(
                    hostname=host,
                    host=str(address),
                    port=port,
                    family=socket.AF_INET6 if address.version == 6 else socket.AF_INET,
                    proto=0,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        if not allowed:
            raise refusal or OSError(f"{host} has no address")
        return allowed

    async def close(self) -> None:
        return None


async def look_up(host: str) -> list[str]:
    """The system's addresses of `host`; raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: Address) -> bool:
    """Whether `address` is one of the public internet; an IPv4 address wrapped in an IPv6 one counts as itself."""
    if isinstance(address, ipaddress.IPv6Address):
        wrapped: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
        if address.teredo:
            wrapped += address.teredo
        if address in _NAT64:
            wrapped.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(inner is not None and not is_public(inner) for inner in wrapped):
            return False
        if address.ipv4_mapped is not None:
            return True
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _matches(host: str, rule: str) -> bool:
    return host == rule.lstrip(".") or (rule.startswith(".") and host.endswith(rule))


def _shown(text: str | URL) -> str:
    """The beginning of what was to be a URL, as one word: a redirect may hold whole sentences."""
    return repr(re.sub(r"\s+", "%20", str(text)[:200]))


def _listed(ports: frozenset[int]) -> str:
    return " and ".join(str(p) for p in sorted(ports)) or "none"
