"""What the demo upstream says, in the form of the dialect it was asked in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.usage import Usage
from ..dialects.forms import FORMS, Heading, Stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..dialects.forms import Form
    from .ask import Ask

REASONING_TOKENS = 8  # what the pause before the text is said to have cost
Json = dict[str, Any]


class DemoForm:
    """One answer whose words are known beforehand."""

    def __init__(
        self, dialect: str, ask: Ask, words: Sequence[str], *, number: int, now: int
    ) -> None:
        heading = Heading(
            key=f"demo{number}", model=ask.model, created=now, include_usage=ask.include_usage
        )
        self._form: Form = FORMS[dialect](heading)
        self._text = "".join(words)
        self._usage = Usage(
            input_tokens=ask.prompt_tokens,
            output_tokens=len(words) + REASONING_TOKENS,
            cached_tokens=0,
            reasoning_tokens=REASONING_TOKENS,
        )

    def opening(self) -> bytes:
        """The frames before the first word."""
        return self._form.opening()

    def word(self, text: str) -> bytes:
        """The frames of the next word."""
        return self._form.text(text)

    def closing(self) -> bytes:
        """The frames after the last word, terminator included."""
        return self._form.closing(self._usage, Stop.END)

    def whole(self) -> Json:
        """The answer as a client gets it that does not stream."""
        return self._form.whole(self._text, "", self._usage, Stop.END)


def models(now: int) -> Json:
    """The list of models, with the fields both vendors' clients look for."""
    model = {
        "id": "demo",
        "object": "model",
        "type": "model",
        "display_name": "Demo",
        "created": now,
        "created_at": "2025-01-01T00:00:00Z",
        "owned_by": "trio-sse-proxy",
    }
    return {
        "object": "list",
        "data": [model],
        "has_more": False,
        "first_id": "demo",
        "last_id": "demo",
    }
