"""The token endpoint: one POST, never repeated here, and what its failure means for a single-use token."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from runtime.oauth.settings import OAuthError, OAuthSettings

ANSWER_SECONDS = 20.0
_LONGEST = 1 << 20


class Refused(OAuthError):
    """The server said no for good. `code` is its own word, for example `invalid_grant`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class NoAnswer(OAuthError):
    """The server could not be asked, or did not answer. `maybe_spent`: it may have taken the token all the same."""

    def __init__(self, message: str, *, maybe_spent: bool) -> None:
        super().__init__(message)
        self.maybe_spent = maybe_spent


def exchange(settings: OAuthSettings, code: str, verifier: str, redirect_uri: str) -> dict[str, Any]:
    """Tokens for an authorization code; raises Refused, NoAnswer."""
    return _post(
        settings.token_url,
        {
            "grant_type": "authorization_code",
            "client_id": settings.client_id,
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
        },
    )


def refresh(settings: OAuthSettings, refresh_token: str) -> dict[str, Any]:
    """Tokens for a refresh token, which is spent by this; raises Refused, NoAnswer."""
    return _post(
        settings.token_url,
        {"grant_type": "refresh_token", "client_id": settings.client_id, "refresh_token": refresh_token},
    )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token is sent to the address that was configured, and not to where that one points."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(url: str, form: dict[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(
        url,
        urllib.parse.urlencode(form).encode(),
        {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json", "User-Agent": "atomizer"},
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=ANSWER_SECONDS) as response:
            body = response.read(_LONGEST)
    except urllib.error.HTTPError as error:
        raise _refusal(url, error) from None
    except urllib.error.URLError as error:  # urllib's word for: it could not be sent
        raise NoAnswer(f"{url} cannot be reached: {error.reason}", maybe_spent=False) from None
    except (OSError, http.client.HTTPException) as error:
        what = str(error) or type(error).__name__
        raise NoAnswer(f"{url} took the request and did not answer: {what}", maybe_spent=True) from None
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise NoAnswer(f"{url} answered with something that is no JSON object", maybe_spent=True)
    return answer


def _refusal(url: str, error: urllib.error.HTTPError) -> OAuthError:
    """RFC 6749 has a word in `error`; OpenAI has an object there, with `code` and `message`.

    Without either it is not the authorization server that says no, but something on the way to it.
    """
    try:
        answer = json.loads(error.read(_LONGEST))
    except (ValueError, OSError, http.client.HTTPException):
        answer = {}
    inner = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(inner, dict):
        code, said = inner.get("code") or inner.get("type"), inner.get("message")
    else:
        code, said = inner, answer.get("error_description") if isinstance(answer, dict) else None
    final = bool(code) and error.code in (400, 401, 403)
    code = str(code or f"HTTP {error.code}")
    message = f"{code}: {str(said)[:300]}" if said else code
    if final:
        return Refused(code, message)
    return NoAnswer(f"{url}: HTTP {error.code}, {message}", maybe_spent=error.code not in (404, 408, 429, 503))
