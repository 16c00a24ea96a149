"""Verdicts follow from findings, and the guide has a section for each item."""

import re
from pathlib import Path

import pytest

from speechpool.ops.checklist import BRIEF, TITLES, Checklist, Finding, Item, Verdict
from speechpool.ops.page import written

GUIDE = (Path(__file__).parents[2] / "docs" / "checklist.md").read_text()
PASS, WARN = Finding.passed("seen"), Finding.warned("odd", "look")
FAIL, UNKNOWN = Finding.failed("wrong", "mend it"), Finding.unknown("unseen", "look")


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ((), Verdict.UNKNOWN),
        ((PASS, PASS), Verdict.PASS),
        ((PASS, UNKNOWN), Verdict.UNKNOWN),
        ((UNKNOWN, WARN, PASS), Verdict.WARN),
        ((PASS, FAIL, WARN, UNKNOWN), Verdict.FAIL),
    ],
)
def test_the_worst_finding_is_the_verdict(findings, verdict):
    assert Item("key", findings).verdict is verdict


def test_what_holds():
    checklist = Checklist((Item("key", (PASS,)), Item("load", (UNKNOWN,))))
    assert (checklist.holds(), checklist.holds(strict=True)) == (True, False)
    assert checklist.only(["key"]).holds(strict=True)
    assert not Checklist((Item("key", (FAIL,)),)).holds()


def test_a_finding_has_evidence_and_what_is_no_pass_a_remedy():
    for wrong in (
        (Verdict.PASS, ""),
        (Verdict.PASS, "seen", "do"),
        (Verdict.FAIL, "seen"),
        (Verdict.UNKNOWN, "", "do"),
    ):
        with pytest.raises(ValueError, match="evidence"):
            Finding(*wrong)


def test_the_page_escapes_what_others_said():
    page = written(Checklist((Item("region", (Finding.failed("<b>&", "<i>"),)),)), "today")
    assert "&lt;b&gt;&amp;" in page
    assert "<b>" not in page
    assert "<i>" not in page


def test_the_guide_has_a_section_for_each_item():
    assert re.findall(r"^## (\w+)\n\n\*(.+)\.\*$", GUIDE, re.MULTILINE) == [*TITLES.items()]
    assert len(BRIEF) == 9  # as many as the provider lists
