"""Text from outside made safe to show: what a model, a web page or a log says must not steer a terminal.

Control characters (C0 but newline and tab, DEL, C1), line and paragraph separators, the marks that turn the direction
of writing, and characters that cannot be seen at all are shown as what they are: `␛` for escape, `<U+202E>` for what
has no picture. A person who approves a command must see all of it. The joiners of scripts and emoji stay.
"""

from __future__ import annotations

import re

_UNSEEN = (
    "\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    "\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
_UNSAFE = re.compile(f"\r\n|[\x00-\x08\x0b-\x1f{_UNSEEN}]")
_UNSAFE_IN_A_ROW = re.compile(f"\r\n|[\x00-\x1f{_UNSEEN}]")
_UNSAFE_IN_JSON = re.compile(
    rb"\\(?:\\|r\\n|[bfr]|u(?:00(?:[01][0-9a-fA-F]|7[fF]|[89][0-9a-fA-F]|[aA][dD])|061[cC]|11(?:5[fF]|60)|180[eE]"
    rb"|20(?:0[bBeEfF]|2[89a-eA-E]|6[0-9a-fA-F])|3164|[fF][eE][fF]{2}|[fF]{2}(?:[aA]0|[fF][9abAB])"
    rb"|[dD]834\\u[dD]{2}7[3-9aA]|[dD][bB]40\\u[dD][cC][0-7][0-9a-fA-F]))"
    rb"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f\xad]|\xd8\x9c|\xe1\x85[\x9f\xa0]|\xe1\xa0\x8e"
    rb"|\xe2\x80[\x8b\x8e\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xe3\x85\xa4|\xef\xbb\xbf|\xef\xbe\xa0|\xef\xbf[\xb9-\xbb]"
    rb"|\xf0\x9d\x85[\xb3-\xba]|\xf3\xa0[\x80\x81][\x80-\xbf]"
)
"""The same in UTF-8, raw and as JSON's escapes."""
_SHORT = {b"\\b": "\b", b"\\f": "\f", b"\\r": "\r"}
_PICTURES = 0x2400
"""Unicode's pictures of the C0 characters begin here, in their order."""


def printable(text: str) -> str:
    """`text` with everything that would steer a terminal shown instead; lines and tabs stay."""
    return _UNSAFE.sub(_shown, text)


def printable_row(text: str) -> str:
    """The same for a single row of a screen: a newline or a tab is shown as well."""
    return _UNSAFE_IN_A_ROW.sub(_shown_in_a_row, text)


def printable_json(raw: bytes) -> bytes:
    """A JSON document whose strings, keys included, are as `printable` makes them; else it means the same."""
    return _UNSAFE_IN_JSON.sub(_shown_in_json, raw)


def whole(text: str) -> str:
    """`text` with `\ufffd` for each half character (a lone surrogate), which neither UTF-8 nor JSON can hold.

    They come from file names that are no UTF-8, odd encodings, and models that write half an escape.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _picture(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(_PICTURES + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"


def _shown(found: re.Match[str]) -> str:
    return "\n" if found[0] == "\r\n" else _picture(found[0])


def _shown_in_a_row(found: re.Match[str]) -> str:
    return _picture("\n") if found[0] == "\r\n" else " " if found[0] == "\t" else _picture(found[0])


def _shown_in_json(found: re.Match[bytes]) -> bytes:
    hit = found[0]
    if hit == b"\\\\":
        return hit
    if hit == b"\\r\\n":
        return b"\\n"
    if hit in _SHORT:
        char = _SHORT[hit]
    elif hit.startswith(b"\\u"):
        char = whole(hit.decode("unicode_escape"))
        if char in "\n\t":
            return hit
    else:
        char = hit.decode()
    return _picture(char).encode()
