"""Saying no to a request that cannot be translated, in words and before anybody was asked."""

from __future__ import annotations

from ...core.failure import Cause, Failure, Refused
from ..wire import dumps


class Declined(Refused):
    """A request of which a part has no counterpart in the other dialect: status 400.

    `param` names the field, `code` is a word for programs; Chat and Responses have a place for both
    in their error bodies, Messages for neither.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(Failure(cause=Cause.INVALID_REQUEST, message=message, status=400))
        self.param = param
        self.code = code

    def openai_body(self) -> bytes:
        """The HTTP body that tells it on Chat and Responses."""
        error = {
            "message": self.failure.message,
            "type": "invalid_request_error",
            "param": self.param,
            "code": self.code,
        }
        return dumps({"error": error})


def unsupported(message: str, param: str) -> Declined:
    """A field, or a value of it, that no Chat upstream could act on."""
    return Declined(message, param=param, code="unsupported_parameter")
