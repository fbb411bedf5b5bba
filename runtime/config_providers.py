"""`[providers.NAME]` of cluster.toml: where model providers are, and how their accounts are signed in to."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from typing import Literal

import msgspec

from protocols.decoding import nearest
from runtime.secrets import PROVIDERS

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_RESERVED = ("offline", "gemini", "claude", "operator", "viewer", "all", "shared", "cluster")


class OAuthTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    authorize_url: str | None = None
    """Where the browser is sent by `atomizer login`. For openai the default is that of the Codex CLI, as with the
    keys below."""
    token_url: str | None = None
    """Where codes and refresh tokens are turned into access tokens."""
    client_id: str | None = None
    """The public client's id."""
    scopes: list[str] = msgspec.field(default_factory=list)
    """What is asked for; empty: the default."""
    redirect_port: int | None = None
    """Port of this machine to which the browser comes back; 0 is any free one. The default client's server takes 1455
    and 1457 only."""
    base_url: str | None = None
    """The model server to which the access token is sent. It must speak OpenAI's Responses API."""


class ProviderTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    kind: Literal["openai"] | None = None
    """For a NAME of your own: what the server speaks. Its models are `NAME/model`."""
    base_url: str | None = None
    """Another server that speaks the provider's API, for example a local one: `http://127.0.0.1:11434`. For openai and
    its kind it ends with the API's version, `/v1`."""
    api: Literal["chat", "responses"] | None = None
    """For openai and its kind: `/chat/completions` or `/responses`. Default: `responses` at OpenAI itself, whose models
    refuse to think and call tools over the other, `chat` at a `base_url`."""
    api_version: str | None = None
    """For google: `v1` (default) or `v1beta`."""
    oauth: OAuthTable = msgspec.field(default_factory=OAuthTable)
    """Another authorization server for `atomizer login`."""


def check_providers(providers: Mapping[str, ProviderTable], agents: Container[str]) -> Iterator[tuple[list[str], str]]:
    """(keys below `[providers]`, what is wrong) for each thing that is. Agents own secrets by name, as providers do."""
    for name, table in providers.items():
        if name in PROVIDERS:
            if table.kind is not None and table.kind != name:
                yield [name, "kind"], f"{name} is what it is; for another server choose a name of your own"
            continue
        if table.kind is None:
            close = nearest(name, PROVIDERS)
            known = f"known: {', '.join(PROVIDERS)}, or a name of your own with kind and base_url"
            yield [name], f"unknown provider `{name}`; " + (f"did you mean `{close}`?" if close else known)
        elif not _NAME.fullmatch(name) or name in _RESERVED or name in agents:
            yield (
                [name],
                f"`{name}` cannot name a provider: use lower-case letters, digits and hyphens, and no agent's name",
            )
        elif table.base_url is None:
            yield [name], f"a provider of your own needs its address: base_url in [providers.{name}]"


def openai_like(providers: Mapping[str, ProviderTable]) -> list[str]:
    """The providers of your own that speak OpenAI's API."""
    return [name for name, table in providers.items() if table.kind == "openai" and name not in PROVIDERS]
