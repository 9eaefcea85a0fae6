"""What the documents say of names, codes and files is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trio_sse_proxy.admin import show_upstream
from trio_sse_proxy.core.breaker import Breaker, BreakerRules, State
from trio_sse_proxy.core.call import Abort, Reason
from trio_sse_proxy.core.endings import Ending
from trio_sse_proxy.core.record import Attempt, Outcome, Record
from trio_sse_proxy.core.usage import Usage
from trio_sse_proxy.dialects.causes import TABLE
from trio_sse_proxy.endpoint import Endpoint
from trio_sse_proxy.gate import Gate
from trio_sse_proxy.health import Check, Health
from trio_sse_proxy.observers.metrics import NONE_YET, Metrics
from trio_sse_proxy.upstreams.http import HttpUpstream
from trio_sse_proxy.upstreams.transport import TrioTransport

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
ENDPOINTS = (ROOT / "docs/endpoints.md").read_text()


def words_in_code(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), link


def test_the_contract_names_tests_that_exist():
    contract = (ROOT / "docs/contract.md").read_text()
    rules = re.split(r"^## ", contract, flags=re.MULTILINE)[1:]
    assert len(rules) == 12
    for rule in rules:
        named = re.findall(r"`((?:\w+/)?test_\w+\.py)`", rule)
        assert named or rule.startswith("R8 ")
        assert [name for name in named if not (ROOT / "tests" / name).exists()] == []


def test_every_metric_is_listed_and_no_other():
    text, _ = Metrics().exposition()
    exposed = {
        name if kind != "counter" else name.removesuffix("_total") + "_total"
        for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text.decode(), re.MULTILINE)
    }
    listed = {word for word in words_in_code(ENDPOINTS) if word.startswith("trio_sse_proxy_")}
    assert listed == exposed


def test_every_field_of_a_record_is_listed():
    attempt = Attempt(upstream="u", started=0.0, usage=Usage())
    record = Record(id="1", method="GET", path="/", began=0.0, attempts=[attempt], usage=Usage())
    fields = record.as_json()
    (in_attempt,) = fields["attempts"]
    assert {*fields, *in_attempt, *in_attempt["usage"]} <= words_in_code(ENDPOINTS)


def test_every_field_of_an_upstream_is_listed_and_no_other():
    upstream = HttpUpstream(
        name="u", base_url="http://u", transport=TrioTransport(), connect_timeout=1.0
    )
    breaker = Breaker(BreakerRules())
    health = Health(upstream, "/", breaker, interval=1.0, timeout=1.0)
    health.last = Check(at=0.0)
    endpoint = Endpoint(upstream=upstream, breaker=breaker, gate=Gate(), health=health)
    shown = show_upstream(endpoint, NONE_YET, 0.0)
    parts = [part for part in shown.values() if isinstance(part, dict)]
    assert len(parts) == 5
    told = {*shown, *(name for part in parts for name in part), *(one.value for one in State)}
    section = ENDPOINTS.partition("\n## Upstreams\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert words_in_code("\n".join(rows)) - {"null"} == told


@pytest.mark.parametrize(("column", "words"), [("reason", Reason), ("abort", Abort)])
def test_what_is_told_of_an_attempt_is_listed(column, words):
    table = ENDPOINTS.partition(f"\n| `{column}` | |\n|---|---|\n")[2].partition("\n\n")[0]
    assert re.findall(r"`(\w+)`", "\n".join(row.split(" | ")[0] for row in table.splitlines())) == [
        word.value for word in words
    ]


def test_what_becomes_of_an_attempt_is_listed():
    (row,) = (line for line in ENDPOINTS.splitlines() if "upstream_attempts_total" in line)
    assert {outcome.value for outcome in Outcome} <= words_in_code(row)


def test_endings_are_listed_with_their_sides_in_order_of_precedence():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|.*\| `(\w+)` \|$", ENDPOINTS, re.MULTILINE)
    told = [(ending, side) for endings, side in rows for ending in re.findall(r"\w+", endings)]
    assert told == [("ending", "side"), *((ending.value, ending.side.value) for ending in Ending)]


def test_every_cause_is_told_as_the_table_says():
    page = (ROOT / "docs/dialects.md").read_text().partition("\n## Causes\n")[2]
    rows = [line.split(" | ") for line in page.splitlines() if re.match(r"\| [a-z]", line)]
    rows = [row for row in rows if row[0] != "| cause"][: len(TABLE)]
    for row, cause in zip(rows, TABLE.values(), strict=True):
        assert row[1] in {str(cause.status), "(on the stream)"}
        assert [word for word in (cause.chat_type, cause.chat_code) if word] == re.findall(
            r"`(\w+)`", row[2]
        )
        assert row[3].startswith(f"`{cause.responses_code}`")
        assert row[4].startswith(f"`{cause.messages_type}`")
        assert row[1] == "(on the stream)" or f"({cause.messages_status})" in row[4]
        assert cause.again == (row[5] not in {"no |", "never |"})
