"""Which authorization server a provider's accounts are at, and as which client we go there."""

from __future__ import annotations

import urllib.parse

import msgspec

from protocols.errors import AtomizerError
from runtime.config_providers import OAuthTable


class OAuthError(AtomizerError):
    """Signing in, or staying signed in, did not work."""


class OAuthSettings(msgspec.Struct, frozen=True):
    """One authorization server, as a public client with PKCE sees it."""

    provider: str
    authorize_url: str
    token_url: str
    client_id: str
    scopes: list[str]
    redirect_ports: list[int]
    """Tried in this order; 0 is any free one."""
    redirect_path: str
    base_url: str
    """Where the access token is sent, and nowhere else."""
    extra: dict[str, str]
    """More parameters of the authorize URL."""


OPENAI = OAuthSettings(
    provider="openai",
    authorize_url="https://auth.openai.com/oauth/authorize",
    token_url="https://auth.openai.com/oauth/token",
    client_id="app_EMoamEEZ73f0CkXaXp7hrann",
    scopes=["openid", "profile", "email", "offline_access"],
    redirect_ports=[1455, 1457],
    redirect_path="/auth/callback",
    base_url="https://chatgpt.com/backend-api/codex",
    extra={"id_token_add_organizations": "true", "codex_cli_simplified_flow": "true", "originator": "atomizer"},
)
"""The public client of the Codex CLI (openai/codex, codex-rs/login/src/server.rs): its server takes no other ports."""
_SHIPPED = {OPENAI.provider: OPENAI}
SUPPORTED = tuple(_SHIPPED)
"""Providers whose accounts can be used by signing in."""


def settings_for(provider: str, table: OAuthTable) -> OAuthSettings:
    """The shipped settings, with what `[providers.NAME.oauth]` says in their place; raises OAuthError."""
    shipped = _SHIPPED.get(provider)
    if shipped is None:
        raise OAuthError(f"{provider} has no sign-in; it takes a key: `atomizer secrets set {provider}`")
    settings = msgspec.structs.replace(
        shipped,
        authorize_url=table.authorize_url or shipped.authorize_url,
        token_url=table.token_url or shipped.token_url,
        client_id=table.client_id or shipped.client_id,
        scopes=table.scopes or shipped.scopes,
        redirect_ports=shipped.redirect_ports if table.redirect_port is None else [table.redirect_port],
        base_url=table.base_url or shipped.base_url,
    )
    where = f"[providers.{provider}.oauth]"
    for key, url in (
        ("authorize_url", settings.authorize_url),
        ("token_url", settings.token_url),
        ("base_url", settings.base_url),
    ):
        if not _is_safe(url):
            raise OAuthError(f"{where} {key} must begin with https:// (or be on this machine), not {url!r}")
    return settings


def _is_safe(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and local))
