"""Learns a vocabulary for byte-level BPE: which pieces of words are joined, and in which order.

With it the model reads English and JSON at four bytes a token and more, so that an engine with one
thread is through the prompts of real agents in seconds; their time goes by the square of the length.
Run by the engine's own Python, which has the texts to learn from.
"""

from __future__ import annotations

import collections
import json
import re
from pydoc_data.topics import topics

import asked

Pair = tuple[str, str]
PIECES = re.compile(r" ?[A-Za-z]+|\d+| ?[^\sA-Za-z\d]+|\s+")
"""Nearly as the engine splits a text before it joins anything."""
LEARNT = 2000
COMMON = 6000  # words looked at


def letters() -> list[str]:
    """The characters that stand for the bytes from 0 to 255 in byte-level BPE, as GPT-2 has them."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte if byte in shown else next(hidden)) for byte in range(256)]


def texts() -> str:
    """English, out of Python's own documentation, and requests as the agents send them."""
    talk = json.dumps([asked.codex(*asked.CODEX_CALLED), asked.claude(*asked.CLAUDE_CALLED)])
    return "\n".join([*topics.values(), *[talk] * 20])


def learnt(text: str, count: int = LEARNT) -> list[Pair]:
    """The pairs to join, the most frequent first, each counted with those before it joined."""
    found = collections.Counter(PIECES.findall(text)).most_common(COMMON)
    written = letters()
    words = [[written[byte] for byte in word.encode()] for word, _ in found]
    pairs: collections.Counter[Pair] = collections.Counter()
    where: dict[Pair, set[int]] = collections.defaultdict(set)

    def count_in(number: int, sign: int) -> None:
        for pair in zip(words[number], words[number][1:], strict=False):
            pairs[pair] += sign * found[number][1]
            where[pair].add(number)

    for number in range(len(words)):
        count_in(number, +1)
    order = []
    for _ in range(count):
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        order.append(best)
        for number in where.pop(best):
            count_in(number, -1)
            words[number] = joined(words[number], best)
            count_in(number, +1)
        del pairs[best]
    return order


def joined(word: list[str], pair: Pair) -> list[str]:
    done: list[str] = []
    for piece in word:
        if done and (done[-1], piece) == pair:
            done[-1] += piece
        else:
            done.append(piece)
    return done
