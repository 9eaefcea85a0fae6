from __future__ import annotations

from virtual_time import keep_virtual_time


def pytest_collection_modifyitems(items):
    keep_virtual_time(items, __file__)
