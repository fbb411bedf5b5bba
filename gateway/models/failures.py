"""What a failed call means: HTTP statuses, error types and codes of the providers, classified once."""

from __future__ import annotations

import email.utils
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.models.provider import ErrorKind

_ANTHROPIC_CODES = {
    "enforced_spend_limit_reached": ErrorKind.QUOTA,
    "contract_spend_limit_reached": ErrorKind.QUOTA,
    "linked_organization_spend_limit_reached": ErrorKind.QUOTA,
    "linked_organization_billing_unavailable": ErrorKind.QUOTA,
    "organization_on_hold": ErrorKind.AUTH,
    "ramp_limit_exceeded": ErrorKind.RATE,
}
_ANTHROPIC_TYPES = {
    "authentication_error": ErrorKind.AUTH,
    "permission_error": ErrorKind.AUTH,
    "billing_error": ErrorKind.QUOTA,
    "not_found_error": ErrorKind.CONFIG,
    "rate_limit_error": ErrorKind.RATE,
    "overloaded_error": ErrorKind.OVERLOAD,
    "timeout_error": ErrorKind.OVERLOAD,
    "conflict_error": ErrorKind.OVERLOAD,
    "exceed_context_size_error": ErrorKind.OVERFLOW,  # llama.cpp
}
_OPENAI_CODES = {
    "insufficient_quota": ErrorKind.QUOTA,
    "billing_hard_limit_reached": ErrorKind.QUOTA,
    "billing_not_active": ErrorKind.QUOTA,
    "usage_limit_reached": ErrorKind.QUOTA,  # of a plan, until its window ends
    "usage_not_included": ErrorKind.QUOTA,
    "invalid_api_key": ErrorKind.AUTH,
    "account_deactivated": ErrorKind.AUTH,
    "token_expired": ErrorKind.AUTH,
    "model_not_found": ErrorKind.CONFIG,
    "unsupported_country_region_territory": ErrorKind.AUTH,
    "context_length_exceeded": ErrorKind.OVERFLOW,
    "rate_limit_exceeded": ErrorKind.RATE,
    "content_filter": ErrorKind.REFUSED,
    "content_policy_violation": ErrorKind.REFUSED,
    "invalid_prompt": ErrorKind.REFUSED,  # "your prompt was flagged"
    "server_error": ErrorKind.OVERLOAD,
    "server_is_overloaded": ErrorKind.OVERLOAD,
    "slow_down": ErrorKind.OVERLOAD,
}
_OPENAI_TYPES = {
    "insufficient_quota": ErrorKind.QUOTA,
    "usage_limit_reached": ErrorKind.QUOTA,
    "authentication_error": ErrorKind.AUTH,
    "permission_error": ErrorKind.AUTH,
    "rate_limit_error": ErrorKind.RATE,
    "not_found_error": ErrorKind.CONFIG,
    "overloaded_error": ErrorKind.OVERLOAD,
    "server_error": ErrorKind.OVERLOAD,
    "exceed_context_size_error": ErrorKind.OVERFLOW,  # llama.cpp
}
_TOO_LONG = ("maximum context length", "context window", "exceeds the available context", "exceed_context_size")
"""What servers of one's own say of a conversation that is too long; they have no code for it."""
_GOOGLE_STATUSES = {
    "UNAUTHENTICATED": ErrorKind.AUTH,
    "PERMISSION_DENIED": ErrorKind.AUTH,
    "NOT_FOUND": ErrorKind.CONFIG,
    "FAILED_PRECONDITION": ErrorKind.CONFIG,
    "UNIMPLEMENTED": ErrorKind.CONFIG,
    "RESOURCE_EXHAUSTED": ErrorKind.RATE,
    "UNAVAILABLE": ErrorKind.OVERLOAD,
    "INTERNAL": ErrorKind.OVERLOAD,
    "DEADLINE_EXCEEDED": ErrorKind.OVERLOAD,
    "CANCELLED": ErrorKind.OVERLOAD,
    "ABORTED": ErrorKind.OVERLOAD,
    "UNKNOWN": ErrorKind.OVERLOAD,
}
_GOOGLE_REASONS = {
    "API_KEY_INVALID": ErrorKind.AUTH,
    "API_KEY_EXPIRED": ErrorKind.AUTH,
    "API_KEY_SERVICE_BLOCKED": ErrorKind.AUTH,
    "BILLING_DISABLED": ErrorKind.QUOTA,
    "RATE_LIMIT_EXCEEDED": ErrorKind.RATE,
}
_BY_HTTP_STATUS = {
    401: ErrorKind.AUTH,
    402: ErrorKind.QUOTA,
    403: ErrorKind.AUTH,
    404: ErrorKind.CONFIG,
    408: ErrorKind.OVERLOAD,
    409: ErrorKind.OVERLOAD,
    410: ErrorKind.CONFIG,
    429: ErrorKind.RATE,
    499: ErrorKind.OVERLOAD,
    501: ErrorKind.CONFIG,
}


def of_anthropic(status: int, type: str | None, code: str | None, message: str) -> ErrorKind:
    """By `error_code`, then `type`, then status. Two causes have no code of their own and are told by their text:
    an overflow ("prompt is too long") and an empty account ("credit balance is too low").

    An error inside a stream comes with the stream's own status, 200.
    """
    if code in _ANTHROPIC_CODES:
        return _ANTHROPIC_CODES[code]
    if type in _ANTHROPIC_TYPES:
        return _ANTHROPIC_TYPES[type]
    text = message.lower()
    if status in (200, 400, 413):
        if "prompt is too long" in text or "exceed_context_size" in text or "exceed context limit" in text:
            return ErrorKind.OVERFLOW
        if "credit balance is too low" in text:
            return ErrorKind.QUOTA
    return _by_http_status(status)


def of_openai(status: int, type: str | None, code: str | None, message: str) -> ErrorKind:
    """By `code`, then `type`, then an overflow's text, then status (200: an error inside a stream)."""
    if code in _OPENAI_CODES:
        return _OPENAI_CODES[code]
    if type in _OPENAI_TYPES:
        return _OPENAI_TYPES[type]
    text = message.lower()
    if status in (200, 400, 413) and any(words in text for words in _TOO_LONG):
        return ErrorKind.OVERFLOW
    return _by_http_status(status)


def of_google(status: int, name: str | None, message: str, details: Iterable[Any] = ()) -> ErrorKind:
    """By the reason in an ErrorInfo, a daily QuotaFailure, the status name (RESOURCE_EXHAUSTED), then the number."""
    entries = [entry for entry in details if isinstance(entry, Mapping)]
    for entry in entries:
        reason = entry.get("reason")
        if isinstance(reason, str) and reason in _GOOGLE_REASONS:
            return _GOOGLE_REASONS[reason]
    if status == 429 or name == "RESOURCE_EXHAUSTED":
        violations = [v for entry in entries for v in _items(entry.get("violations")) if isinstance(v, Mapping)]
        daily = any("perday" in str(v.get("quotaId", "")).lower() for v in violations)
        return ErrorKind.QUOTA if daily else ErrorKind.RATE
    text = message.lower()
    if status == 400 and "token count" in text and "exceeds" in text:
        return ErrorKind.OVERFLOW
    if name in _GOOGLE_STATUSES:
        return _GOOGLE_STATUSES[name]
    return _by_http_status(status)


def _by_http_status(status: int) -> ErrorKind:
    if status in _BY_HTTP_STATUS:
        return _BY_HTTP_STATUS[status]
    return ErrorKind.INVALID if 400 <= status < 500 else ErrorKind.OVERLOAD


def retry_after(headers: Mapping[str, str], now: float, details: Iterable[Any] = ()) -> float | None:
    """Seconds to wait as the provider said: `retry-after-ms`, `retry-after` (seconds or an HTTP date), or a RetryInfo.

    `now` is Unix seconds. None if it said nothing that can be read; never negative.
    """
    millis = _number(headers.get("retry-after-ms"))
    if millis is not None:
        return millis / 1000
    header = headers.get("retry-after")
    if header is not None:
        seconds = _number(header)
        if seconds is not None:
            return seconds
        try:
            return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now)
        except (ValueError, OverflowError):
            pass
    for entry in details:
        if isinstance(entry, Mapping) and isinstance(delay := entry.get("retryDelay"), str):
            seconds = _number(delay.removesuffix("s"))
            if seconds is not None:
                return seconds
    return None


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < 1e12 else None


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
