"""Parsers under fuzz: each target is a function of bytes that asserts what must hold for all of them.

`python -m tests.fuzz --minutes 3` runs them long, under a coverage-guided engine; the inputs that it
found worth keeping stand in `corpus/` and are replayed by the normal suite (docs/reliability.md).
"""

import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]

# The grammars and the reference reader that other tests were written with are the oracles here too.
for _place in (_TESTS, _TESTS / "dialects" / "translate"):
    if str(_place) not in sys.path:
        sys.path.append(str(_place))
