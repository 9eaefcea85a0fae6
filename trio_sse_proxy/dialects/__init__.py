"""What each wire format means: pure knowledge, one module per dialect."""

from .base import Dialect, DialectStream, Sight
from .chat import CHAT
from .errors import (
    failure_of_error,
    failure_of_status,
    is_retryable,
    is_upstreams_fault,
    may_go_elsewhere,
)
from .messages import MESSAGES
from .recognise import Peek, peek, recognise
from .responses import RESPONSES
from .wire import is_cut

__all__ = [
    "CHAT",
    "MESSAGES",
    "RESPONSES",
    "Dialect",
    "DialectStream",
    "Peek",
    "Sight",
    "failure_of_error",
    "failure_of_status",
    "is_cut",
    "is_retryable",
    "is_upstreams_fault",
    "may_go_elsewhere",
    "peek",
    "recognise",
]
