"""`why` on a corpus of containers that failed, hang or are fine: tests/why/cases."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import pytest

from tests.conftest import run_cli, why_no_kernel
from tests.why.case import Kind
from tests.why.cases import CASES
from tests.why.run import NAMESPACE, Result, lab, missing
from tests.why.score import Verdict, verdict

pytestmark = pytest.mark.timeout(420)


@dataclass(frozen=True, repr=False)
class Ran:
    """What the corpus left: results, verdicts, and the pods that `why -A` lists."""

    results: list[Result]
    verdicts: list[Verdict]
    listed: set[str]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The whole corpus, once."""
    if reason := why_no_kernel():
        pytest.skip(reason)
    if (lacking := missing()) and not os.environ.get("GADGET_REQUIRE_KERNEL"):
        pytest.skip(f"needs {', '.join(lacking)}")
    with lab(tmp_path_factory.mktemp("why"), CASES) as where:
        results = where.run_all(CASES)
        # of containers that begin while 16 others do the recorder may miss the beginning
        again = {each.case.name: each for each in where.run_all([each.case for each in results if not each.as_meant])}
        results = [again.get(each.case.name, each) for each in results]
        done = run_cli(
            "why", "-A", "-o", "json", "--agent", where.agent.address, env={**os.environ, "KUBECONFIG": "/dev/null"}
        )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    listed = {row["pod"] for row in rows if row["namespace"] == NAMESPACE and row["container"] == "app"}
    return Ran(results, [verdict(each.case, each.replies) for each in results if each.as_meant], listed)


def table(verdicts: list[Verdict]) -> str:
    """A line each."""
    return "".join(f"\n{each}" for each in verdicts)


def test_cases_end_as_meant(ran: Ran) -> None:
    """What is judged are real failures: each container ended, or hung, just as its case says."""
    other = [each for each in ran.results if not each.as_meant]
    count = len(other)
    assert not count, "".join(f"\n{each.case.name}: {each.ended}, not {each.case.exits}: {each.error} {each.output[-300:]}"
                              for each in other)  # fmt: skip
    assert sum(each.case.kind is Kind.BAD for each in ran.results) >= 180


@pytest.mark.parametrize("kind", [Kind.BAD, Kind.HANG])
def test_right_cause(ran: Ran, kind: Kind) -> None:
    """Of a pod that failed or hangs the first line of `why` names the right cause, for 95 % of a large corpus."""
    chosen = [each for each in ran.verdicts if each.case.kind is kind]
    wrong = [each for each in chosen if not each.right]
    share = len(wrong) / len(chosen)
    assert share <= 0.05, table(wrong)


def test_no_wrong_certainty(ran: Ran) -> None:
    """What `why` says is certain is so, in every container of the corpus."""
    wrong = [each for each in ran.verdicts if each.wrong_for_certain]
    count = len(wrong)
    assert not count, table(wrong)


def test_no_false_alarm(ran: Ran) -> None:
    """`why -A` lists no container that ended as it should, and all that failed."""
    # those that go on were killed by the runtime in the end
    fine = {each.case.name for each in ran.verdicts if each.case.kind is Kind.BENIGN and each.case.exits is not None}
    alarms = sorted(ran.listed & fine)
    assert not alarms
    failed = {each.case.name for each in ran.verdicts if each.case.kind is Kind.BAD and each.case.exits}
    missed = sorted(failed - ran.listed)
    assert not missed


def test_fine_ones(ran: Ran) -> None:
    """Of a pod that is fine `why` says that nothing stands out, or tells what it saw as no more than likely."""
    wrong = [each for each in ran.verdicts if each.case.kind is Kind.BENIGN and not each.right]
    count = len(wrong)
    assert not count, table(wrong)
