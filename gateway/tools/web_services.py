"""The services behind `web_search`: a SearXNG server of one's own, or Brave's API."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec

from protocols.errors import AtomizerError
from runtime.config_reach import WebTable

BRAVE_URL = "https://api.search.brave.com"
TIMEOUT_SECONDS = 20.0
MAX_ANSWER = 2_000_000
"""Bytes of a service's answer that are read."""
MAX_TEXT = 400
"""Characters of one result's text."""
_MARKUP = re.compile(r"<[^<>]{0,200}>")


class SearchFailed(AtomizerError):
    """The search could not be carried out; says why, and what to configure."""


class Hit(msgspec.Struct, frozen=True):
    title: str
    url: str
    text: str


class Searcher:
    """Asks the configured service. `key()` is its API key, if there is one."""

    def __init__(self, table: WebTable, key: Callable[[], str | None]) -> None:
        self._table = table
        self._key = key

    @property
    def name(self) -> str:
        return self._table.search or "web"

    async def search(self, query: str, count: int) -> list[Hit]:
        """The service's results, best first; raises SearchFailed."""
        if self._table.search == "searxng":
            base = (self._table.search_url or "").rstrip("/")
            answer = await self._get(f"{base}/search", {"q": query, "format": "json"}, {})
            found = answer.get("results")
            fields = ("title", "url", "content")
        elif self._table.search == "brave":
            key = self._key()
            if key is None:
                raise SearchFailed("web_search has no key for brave: run `atomizer secrets set brave`")
            base = (self._table.search_url or BRAVE_URL).rstrip("/")
            answer = await self._get(
                f"{base}/res/v1/web/search", {"q": query, "count": str(count)}, {"X-Subscription-Token": key}
            )
            web = answer.get("web")
            found = web.get("results") if isinstance(web, dict) else []
            fields = ("title", "url", "description")
        else:
            raise SearchFailed(
                'no search service is configured: set [web] search = "searxng" with search_url = "http://..." '
                'or search = "brave" in cluster.toml, then `atomizer restart --all`; until then use web_fetch'
            )
        return _hits(found, fields)[:count]

    async def _get(self, url: str, query: dict[str, str], headers: dict[str, str]) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session,
                session.get(
                    url, params=query, headers={"Accept": "application/json", **headers}, allow_redirects=False
                ) as answer,
            ):
                if answer.status != 200:
                    raise SearchFailed(f"{self.name} answered {answer.status}{_mend(self.name, answer.status)}")
                body = await answer.content.read(MAX_ANSWER)
                while len(body) < MAX_ANSWER and (more := await answer.content.read(MAX_ANSWER - len(body))):
                    body += more
        except TimeoutError:
            raise SearchFailed(f"{self.name} did not answer within {TIMEOUT_SECONDS:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise SearchFailed(f"{self.name} cannot be reached at {url}: {error}") from None
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise SearchFailed(f"{self.name} at {url} sent no JSON{_mend(self.name, 200)}") from None


def _mend(name: str, status: int) -> str:
    if name == "searxng" and status in (200, 403):
        return "; its settings.yml must allow JSON: search: formats: [html, json]"
    if name == "brave" and status in (401, 403, 422):
        return "; the key is refused: run `atomizer secrets set brave`"
    if status == 429:
        return "; too many searches: try again later"
    return ""


def _hits(found: Any, fields: tuple[str, str, str]) -> list[Hit]:
    hits: list[Hit] = []
    for entry in found if isinstance(found, list) else []:
        if isinstance(entry, dict):
            title, url, text = (str(entry.get(field) or "") for field in fields)
            if url.startswith(("http://", "https://")):
                hits.append(Hit(_plain(title)[:200] or url, url[:2000], _plain(text)[:MAX_TEXT]))
    return hits


def _plain(text: str) -> str:
    return " ".join(html.unescape(_MARKUP.sub("", text)).split())
