"""`pytest --seed N`: the history of one seed again. Without the option nobody looks in here."""

from __future__ import annotations

import pytest

from .report import story


def test_the_history_of_a_seed(request):
    if told := story(request.config.getoption("seed")):
        pytest.fail(told, pytrace=False)
