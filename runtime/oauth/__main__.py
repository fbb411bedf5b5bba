"""`python -m runtime.oauth`: refreshes one credential, as told on stdin. Not for people; see `refresh.py`."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path

import msgspec

from runtime.home import Home, explain_os_error
from runtime.oauth.credential import CredentialFile, NotSignedIn
from runtime.oauth.refresh import Order, Report, refresh
from runtime.oauth.settings import OAuthError


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it is done in seconds, and half done it would lose the account
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    report = Report(ok=True)
    try:
        file = CredentialFile(Home(Path(order.home)), order.settings.provider)
        refresh(file, order.settings, rejected=order.rejected)
    except NotSignedIn as error:
        report = Report(ok=False, sign_in=True, message=str(error))
    except OAuthError as error:
        report = Report(ok=False, message=str(error))
    except OSError as error:
        report = Report(ok=False, message=explain_os_error(error, "the refreshed token cannot be kept"))
    with contextlib.suppress(BrokenPipeError):  # whoever asked may be dead
        sys.stdout.buffer.write(msgspec.json.encode(report))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
