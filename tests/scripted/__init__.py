"""A model server for tests that answers and fails as it is told; start with `server.py`."""

from .answers import Answer
from .scenarios import SCENARIOS
from .server import ScriptedUpstream
from .talk import TEXT, WORDS, Said
from .visit import Left, Visit

__all__ = ["SCENARIOS", "TEXT", "WORDS", "Answer", "Left", "Said", "ScriptedUpstream", "Visit"]
