"""What an upstream must get back with the next turn, carried by the client meanwhile.

Servers want the reasoning of earlier turns again, and some of them marks on their tool calls (Gemini's
thought signatures, OpenRouter's reasoning details). The proxy keeps no state, so it packs both into the
one field that clients promise to return as it was: `encrypted_content` on Responses, `signature` on
Messages. This is packing, and no encryption: whoever has the string can read it, and could have read
the reasoning anyway.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass, field
from typing import Any

from ..wire import dumps, fields, items, loads, text

PREFIX = "tssp1."
MAX_UNPACKED = 8 * 2**20
"""Bytes: a string made to unpack to more is not one of ours."""

Json = dict[str, Any]


@dataclass(slots=True)
class Carried:
    """`extras` by call id: fields that return on that call. `details` return on the message."""

    reasoning: str = ""
    extras: dict[str, Json] = field(default_factory=dict[str, Json])
    details: list[Json] = field(default_factory=list[Json])

    def __bool__(self) -> bool:
        return bool(self.reasoning or self.extras or self.details)

    def pack(self) -> str:
        """As a string of letters that clients keep."""
        told: Json = {"rc": self.reasoning}
        if self.extras:
            told["tc"] = self.extras
        if self.details:
            told["rd"] = self.details
        return PREFIX + base64.urlsafe_b64encode(zlib.compress(dumps(told), 1)).decode()


def unpack(packed: object) -> Carried | None:
    """What `pack` packed; None for what is not ours, or no longer whole."""
    if not isinstance(packed, str) or not packed.startswith(PREFIX):
        return None
    try:
        squeezed = base64.urlsafe_b64decode(packed[len(PREFIX) :].encode("ascii", "replace"))
        data = zlib.decompressobj().decompress(squeezed, MAX_UNPACKED)
    except (binascii.Error, zlib.error):
        return None
    told = fields(loads(data))  # what was cut short is no JSON
    if "rc" not in told:
        return None
    extras = {key: fields(value) for key, value in fields(told.get("tc")).items()}
    details = [detail for item in items(told.get("rd")) if (detail := fields(item))]
    return Carried(text(told["rc"]), extras, details)
