"""Readable text from what a web server sent. Everything here blocks: call it in a thread.

The page is read as a stream of tags, not as a tree: a tree that follows the standard lets a small hostile page cost
minutes and gigabytes (deep nesting, unclosed formatting), and a library in C would hold up the whole process meanwhile.
Here time and memory grow with the length of the page, whatever is in it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from html import unescape

import msgspec
from yarl import URL

_DROPPED = frozenset(
    "noscript template svg math nav footer aside form button object select dialog audio video canvas head".split()
)
_RAW = frozenset("script style textarea iframe xmp noembed noframes title".split())
"""Elements whose content is no markup, up to their end tag."""
_DROPPED_ROLES = frozenset("navigation banner contentinfo search complementary dialog alert menu menubar".split())
_VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
_SELF_CLOSING = frozenset("p li dt dd tr td th option".split())
"""Elements that the next one of their kind, or a block, ends without an end tag."""
_PARAGRAPHS = frozenset("p table ul ol dl pre blockquote h1 h2 h3 h4 h5 h6 figure hr".split())
_BLOCKS = _PARAGRAPHS | frozenset(
    "address article body caption center dd details div dt fieldset figcaption header hgroup html li main section"
    " summary tbody tfoot thead tr".split()
)
_NO_TEXT = frozenset(
    "base64 bz2 hex quopri rot13 uu zlib punycode idna undefined unicode_escape raw_unicode_escape".split()
)
"""Codecs of Python that are no character sets."""

_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|(?:font-size|opacity)\s*:\s*0(?![.\d]*[1-9])")
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w-]{1,40})", re.I)
_TAG = re.compile(r"</?([a-zA-Z][a-zA-Z0-9:-]{0,40})")
_ATTRIBUTE = re.compile(r"([a-zA-Z_:-]{1,40})(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+)))?")
_SPACES = re.compile(r"[ \t\r\n\f\v\u00a0\u200b]+")
_MAX_TAG = 4000
"""Characters of one tag whose attributes are looked at."""
_MAX_LINK = 500
_MIN_MAIN = 200
"""Characters that `<main>` or `<article>` must hold to be taken for the page's content."""


class Page(msgspec.Struct, frozen=True):
    title: str
    text: str


def decode(body: bytes, charset: str | None, *, html: bool) -> str:
    """`body` as text: by the charset the server said, else the page's own, else UTF-8."""
    named = [charset] if charset else []
    if html and (found := _CHARSET.search(body[:4096])):
        named.append(found[1].decode("ascii", "replace"))
    for name in named:
        try:
            if codecs.lookup(name).name not in _NO_TEXT:
                return body.decode(name, "replace")
        except LookupError:
            continue
    return body.decode("utf-8-sig", "replace")


def read_page(html: str, base: URL) -> Page:
    """The readable text of a page as light Markdown, without its furniture and its hidden parts."""
    reading = _Reading(base)
    for kind, name, text in _tokens(html):
        if kind == "text":
            reading.text(text)
        elif kind == "raw":
            reading.raw(name, text)
        elif kind == "open":
            reading.open(name, text)
        else:
            reading.close(name)
    return Page(" ".join(unescape(reading.title).split()), reading.finish())


def _tokens(html: str) -> Iterator[tuple[str, str, str]]:
    """(`text`, "", text), (`open`, name, attributes), (`close`, name, "") and (`raw`, name, content), in order."""
    at, size = 0, len(html)
    while at < size:
        begin = html.find("<", at)
        if begin < 0:
            begin = size
        if begin > at:
            yield "text", "", html[at:begin]
        if begin == size:
            return
        if html.startswith(("<!", "<?"), begin):
            mark = "-->" if html.startswith("<!--", begin) else ">"
            end = html.find(mark, begin + 2)
            at = end + len(mark) if end >= 0 else size
            continue
        tag = _TAG.match(html, begin)
        if tag is None:
            yield "text", "", "<"
            at = begin + 1
            continue
        end = _tag_end(html, tag.end())
        name = tag[1].lower()
        at = end + 1
        if html[begin + 1] == "/":
            yield "close", name, ""
        elif name in _RAW and html[end - 1 : end] != "/":
            closing = re.compile(f"</{name}(?![a-z0-9])", re.I).search(html, at)
            stop = closing.start() if closing else size
            yield "raw", name, html[at:stop]
            at = _tag_end(html, stop) + 1
        else:
            yield "open", name, html[tag.end() : min(end, tag.end() + _MAX_TAG)]


def _tag_end(html: str, start: int) -> int:
    """Where the `>` of a tag stands; one within quotes does not count, unless the quotes never end."""
    first = end = html.find(">", start)
    while 0 <= end < start + _MAX_TAG:
        part = html[start:end]
        if part.count('"') % 2 == 0 and (part.count("'") % 2 == 0 or '"' in part):
            return end
        end = html.find(">", end + 1)
    return first if first >= 0 else len(html)


class _Reading:
    """The text so far, and what is open around the next piece."""

    def __init__(self, base: URL) -> None:
        self.title = ""
        self._base = base
        self._out: list[str] = []
        self._breaks = 0
        """Line ends due before the next piece of text."""
        self._space = False
        self._dropping = ""
        """The element whose content is left out, and how many of its name are open."""
        self._depth = 0
        self._pre = 0
        self._lists: list[int | None] = []
        """For each open list the number of its next item; None in one without numbers."""
        self._link: tuple[int, str] | None = None
        self._cells = 0
        self._main: list[tuple[str, int, int]] = []
        self._mains: list[tuple[int, int]] = []

    def text(self, text: str) -> None:
        if self._dropping:
            return
        text = unescape(text)
        if self._pre:
            if text:
                self._put(text.replace("\r", ""))
            return
        flat = _SPACES.sub(" ", text)
        words = flat.strip(" ")
        if not words:
            self._space = self._space or bool(flat)
            return
        self._space = self._space or flat[0] == " "
        self._put(words)
        self._space = flat[-1] == " "

    def raw(self, name: str, text: str) -> None:
        if name == "title" and not self.title:
            self.title = text[:500]
        elif name == "xmp":
            self.text(text)

    def open(self, name: str, attributes: str) -> None:
        if self._dropping:
            if self._dropping in _SELF_CLOSING and (name in _BLOCKS or name == self._dropping):
                self._dropping = ""
            else:
                self._depth += name == self._dropping
                return
        found = _attributes(attributes)
        if name not in _VOID and (name in _DROPPED or _is_hidden(found)):
            self._dropping, self._depth = name, 1
            return
        if name in _BLOCKS:
            self._break(2 if name in _PARAGRAPHS else 1)
        if name in ("main", "article") or found.get("role") == "main":
            if len(self._main) < 50:
                self._main.append((name, 0, len(self._out)))
        elif self._main and name == self._main[-1][0]:
            outer, depth, start = self._main[-1]
            self._main[-1] = (outer, depth + 1, start)
        if name in ("h1", "h2", "h3", "h4", "h5", "h6"):
            self._put("#" * int(name[1]) + " ")
        elif name == "br":
            self._breaks = min(2, self._breaks + 1)
        elif name in ("ul", "ol"):
            self._break(1 if self._lists else 2)
            self._lists = [*self._lists[-20:], 1 if name == "ol" else None]
        elif name == "li":
            self._item()
        elif name == "pre":
            self._pre += 1
        elif name in ("td", "th"):
            self._put(" | " if self._cells else "| ")
            self._cells += 1
        elif name == "tr":
            self._cells = 0
        elif name == "img" and (alt := " ".join((found.get("alt") or "").split())):
            self._put(f"[image: {alt}]")
        elif name == "a" and (href := found.get("href")):
            self._link = (len(self._out), href)

    def close(self, name: str) -> None:
        if self._dropping:
            self._depth -= name == self._dropping
            if not self._depth:
                self._dropping = ""
            return
        if name in ("ul", "ol") and self._lists:
            self._lists.pop()
        elif name == "pre":
            self._pre = max(0, self._pre - 1)
        elif name == "tr" and self._cells:
            self._put(" |")
            self._cells = 0
        elif name == "a" and self._link is not None:
            self._finish_link(*self._link)
            self._link = None
        if self._main and name == self._main[-1][0]:
            outer, depth, start = self._main[-1]
            if depth:
                self._main[-1] = (outer, depth - 1, start)
            else:
                self._main.pop()
                self._mains.append((start, len(self._out)))
        if name in _BLOCKS:
            self._break(2 if name in _PARAGRAPHS and not (self._lists and name in ("ul", "ol")) else 1)

    def finish(self) -> str:
        """The page's main part if it has one that is worth the name, else all of it."""
        self._mains += [(start, len(self._out)) for _, _, start in self._main]
        whole = "".join(self._out).strip()
        parts = sorted(("".join(self._out[a:b]).strip() for a, b in self._mains[:50]), key=len, reverse=True)
        return parts[0] if parts and len(parts[0]) >= max(_MIN_MAIN, len(whole) // 4) else whole

    def _break(self, lines: int) -> None:
        self._breaks = max(self._breaks, lines)
        self._space = False

    def _put(self, text: str) -> None:
        if self._breaks:
            if self._out:
                self._out.append("\n" * self._breaks)
            self._breaks = 0
        elif self._space and self._out and not self._out[-1].endswith((" ", "\n")):
            self._out.append(" ")
        self._space = False
        self._out.append(text)

    def _item(self) -> None:
        number = self._lists[-1] if self._lists else None
        if number is not None:
            self._lists[-1] = number + 1
        self._put("  " * max(0, len(self._lists) - 1) + (f"{number}. " if number is not None else "- "))

    def _finish_link(self, start: int, href: str) -> None:
        pieces = self._out[start:]
        text = "".join(pieces).strip()
        if not text or "\n" in text or href.startswith("#") or len(text) + len(href) > _MAX_LINK:
            return
        try:
            url = self._base.join(URL(href.strip()))
        except (ValueError, TypeError):
            return
        if url.scheme in ("http", "https"):
            before = pieces[0] if pieces[0].isspace() else ""
            self._out[start:] = [before, f"[{text}]({url})"]


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for match in _ATTRIBUTE.finditer(text):
        found.setdefault(match[1].lower(), unescape(match[2] or match[3] or match[4] or ""))
    return found


def _is_hidden(attributes: dict[str, str]) -> bool:
    """Text that a person would not see is not shown to a model either: it is where instructions are hidden."""
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") in _DROPPED_ROLES
        or bool(_HIDDEN.search(attributes.get("style", "").lower()))
    )
