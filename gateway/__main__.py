"""`atomizer-gateway --home DIR --agent NAME`: one agent, headless, until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import sys
from typing import TYPE_CHECKING

from protocols import VERSION
from protocols.errors import AtomizerError
from runtime.config import ConfigError
from runtime.home import EXIT_CONFIG, EXIT_PORT_TAKEN, HomeError, explain_os_error, find_home
from runtime.leaving import leave
from runtime.secrets import SecretError

if TYPE_CHECKING:
    from gateway.gateway import Gateway


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 after a drain, 78 for a local file that is wrong, 75 for a port or folder somebody else holds."""
    parser = argparse.ArgumentParser(prog="atomizer-gateway", description=__doc__)
    parser.add_argument("--home", help="the cluster's folder (default: ATOMIZER_HOME, else the user data folder)")
    parser.add_argument("--agent", required=True, help="which agent this process is")
    parser.add_argument("--version", action="version", version=VERSION)
    options = parser.parse_args(argv)
    home = find_home(options.home)
    os.umask(0o077)
    try:
        from gateway.exclusive import PortTaken
        from gateway.gateway import Gateway
        from gateway.ledger.schema import SchemaError

        try:
            asyncio.run(_run(Gateway(home, options.agent)))
        except PortTaken as error:
            return _say(error, EXIT_PORT_TAKEN)
        except SchemaError as error:
            return _say(f"{home.state_db(options.agent)}: {error}", EXIT_CONFIG)
        except sqlite3.DatabaseError as error:
            return _say(f"{home.state_db(options.agent)}: {error}; restore it from a backup", EXIT_CONFIG)
    except (ConfigError, HomeError, SecretError) as error:
        return _say(error, EXIT_CONFIG)
    except OSError as error:
        return _say(explain_os_error(error, f"{options.agent} cannot start"), 1)
    except AtomizerError as error:
        return _say(error, 1)
    return 0


async def _run(gateway: Gateway) -> None:
    await gateway.run()
    leave(0)


def _say(problem: object, code: int) -> int:
    """One plain line for whoever started us."""
    print(f"atomizer-gateway: {problem}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
