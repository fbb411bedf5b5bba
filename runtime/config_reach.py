"""What an agent may reach outside: the tables `[web]` of cluster.toml and `[mcp.NAME]` of instance.toml.

The docstrings under the fields are the configuration reference, as in `runtime/config.py`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal
from urllib.parse import urlsplit

import msgspec

SearchService = Literal["searxng", "brave"]

_MCP_NAME = re.compile(r"[a-z][a-z0-9-]{0,23}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_SECRET = re.compile(r"[a-z][a-z0-9-]*/[a-z][a-z0-9-]*")
_HOST = re.compile(r"\.?[a-z0-9]([a-z0-9.-]*[a-z0-9])?")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class WebTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    search: SearchService | None = None
    """What `web_search` asks: `searxng` (a server of yours) or `brave` (a key: `atomizer secrets set brave`)."""
    search_url: str | None = None
    """Where it is: for searxng the server's address, needed; for brave another one than its own."""
    ports: list[int] = msgspec.field(default_factory=lambda: [80, 443])
    """Ports `web_fetch` may connect to."""
    allow_hosts: list[str] = msgspec.field(default_factory=list)
    """If given, `web_fetch` reaches these hosts only: `example.org`, or `.example.org` with all below it."""
    deny_hosts: list[str] = msgspec.field(default_factory=list)
    """Hosts it never reaches, written likewise; wins over `allow_hosts`."""
    allow_private: list[str] = msgspec.field(default_factory=list)
    """Addresses it may reach though they are private: `10.1.2.3`, `10.1.0.0/16`, or with a port `127.0.0.1:8080`."""


class McpTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    command: list[str] = msgspec.field(default_factory=list)
    """A server on stdio: the program and its arguments. Give either this or `url`."""
    url: str | None = None
    """A server over streamable HTTP."""
    enabled: bool = True
    """Whether it is started."""
    allow: list[str] = msgspec.field(default_factory=lambda: ["*"])
    """Its tools the agent gets, by its own names for them; `*` and `?` stand for others."""
    cwd: str | None = None
    """Working folder of a stdio server, absolute or relative to the home; default: the agent's workspace."""
    env: dict[str, str] = msgspec.field(default_factory=dict)
    """Variables a stdio server gets, as they are written here. No keys here: see `secrets`."""
    pass_env: list[str] = msgspec.field(default_factory=list)
    """Names of the gateway's own variables that it gets too. Always: `PATH`, `LANG`, `TZ`."""
    secrets: dict[str, str] = msgspec.field(default_factory=dict)
    """Secrets it gets, as `owner/name`: in a variable of that name (stdio) or a request header (HTTP)."""
    network: bool = False
    """Whether a stdio server may open network connections."""
    read: list[str] = msgspec.field(default_factory=list)
    """More folders or files that a stdio server may read and run, beside `cwd` and those of `[shell]`."""
    write: list[str] = msgspec.field(default_factory=list)
    """More folders or files that it may change."""
    timeout: str = "60s"
    """Time one call may take."""


def check_web(table: WebTable) -> list[tuple[list[str], str]]:
    """What is wrong with `[web]`: (key, a sentence) each."""
    wrong: list[tuple[list[str], str]] = []
    if table.search == "searxng" and not table.search_url:
        wrong.append((["search"], 'search = "searxng" needs search_url, for example `http://127.0.0.1:8888`'))
    if table.search_url is not None and not _is_http(table.search_url):
        wrong.append((["search_url"], f"{table.search_url!r} is no http or https address"))
    wrong += [(["ports"], f"{port} is no port") for port in table.ports if not 0 < port < 65536]
    for key, hosts in (("allow_hosts", table.allow_hosts), ("deny_hosts", table.deny_hosts)):
        wrong += [
            ([key], f"{host!r} is no host name; write `example.org`, or `.example.org` with all below it")
            for host in hosts
            if not _HOST.fullmatch(host.lower())
        ]
    for entry in table.allow_private:
        try:
            parse_private(entry)
        except ValueError as error:
            wrong.append((["allow_private"], str(error)))
    return wrong


def parse_private(text: str) -> tuple[Network, int | None]:
    """An entry of `allow_private` as (network, port); raises ValueError."""
    address, port = text, None
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?", text)
    plain = re.fullmatch(r"([\d./]+):(\d+)", text)
    if bracketed:
        address, port = bracketed[1], bracketed[2]
    elif plain:
        address, port = plain[1], plain[2]
    try:
        network = ipaddress.ip_network(address, strict=False)
        if port is not None and not 0 < int(port) < 65536:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{text!r} is no address: write `10.1.2.3`, `10.1.0.0/16`, `127.0.0.1:8080` or `[::1]:8080`"
        ) from None
    return network, int(port) if port is not None else None


def check_mcp(name: str, table: McpTable) -> list[tuple[list[str], str]]:
    """What is wrong with `[mcp.NAME]`: (key, a sentence) each."""
    wrong: list[tuple[list[str], str]] = []
    if not _MCP_NAME.fullmatch(name):
        wrong.append(([], f"{name!r} cannot name an MCP server: lower-case letters, digits and hyphens, 24 at most"))
    if bool(table.command) == (table.url is not None):
        wrong.append(([], 'give either command = [...] (stdio) or url = "..." (streamable HTTP)'))
    if table.url is not None:
        if not _is_http(table.url):
            wrong.append((["url"], f"{table.url!r} is no http or https address without a name and password in it"))
        elif table.secrets and urlsplit(table.url).scheme == "http" and not _is_loopback(table.url):
            wrong.append((["secrets"], "secrets travel over https, or to this machine, only"))
        if table.env or table.pass_env or table.cwd or table.network or table.read or table.write:
            wrong.append((["url"], "env, pass_env, cwd, network, read and write are for a server with a command"))
    shape, kind = (_HEADER, "request header") if table.url is not None else (_VARIABLE, "variable")
    wrong += [(["secrets", key], f"{key!r} cannot name a {kind}") for key in table.secrets if not shape.fullmatch(key)]
    wrong += [
        (["env", key], f"{key!r} cannot name a variable")
        for key in [*table.env, *table.pass_env]
        if not _VARIABLE.fullmatch(key)
    ]
    for key, secret in table.secrets.items():
        if not _SECRET.fullmatch(secret):
            wrong.append(
                (["secrets", key], f"{secret!r} names no secret; write `owner/name`, as `atomizer secrets list`")
            )
        elif secret.endswith("/token"):
            wrong.append((["secrets", key], f"{secret} is a cluster token; a tool server never gets one"))
    wrong += [
        (["env", key], f"{key} holds the program's own settings; it cannot be given")
        for key in [*table.env, *table.pass_env, *table.secrets]
        if key.startswith("ATOMIZER_")
    ]
    return wrong


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
