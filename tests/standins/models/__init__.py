"""A stand-in for the model providers' servers: `ModelServer` in-process, `python -m tests.standins.models` beside."""

from tests.standins.models.script import Call, Fault, Match, Reply, Tokens
from tests.standins.models.server import KEY, ModelServer

__all__ = ["KEY", "Call", "Fault", "Match", "ModelServer", "Reply", "Tokens"]
