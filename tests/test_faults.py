"""Bad inputs end in one message that names the file or key, or run; the generators are in tests/faults."""

from __future__ import annotations

import fcntl
from collections import Counter
from pathlib import Path

import pytest
from faults.catalogue import CATEGORIES, LARGEST_SHARE, draw_faults
from faults.fault import Fault
from faults.judging import judge
from faults.running import prepare, start_process

SEED = 20
SHORT, LONG = 110, 1100


@pytest.fixture(scope="session")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the tiny data set and its trained run once for all of pytest's workers."""
    root = tmp_path_factory.getbasetemp().parent / "fault-specimen"
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return prepare(root)


def judge_one(fault: Fault, folder: Path, specimen: Path) -> None:
    verdict = judge(fault, folder / "place", specimen)
    words = " ".join((verdict.command.verb, *verdict.command.arguments))
    assert verdict.is_right, f"{fault.case.told}\n{words}\n{verdict.got}: {verdict.why}\n{verdict.outcome.text[-1500:]}"


@pytest.mark.parametrize("fault", draw_faults(SEED, SHORT), ids=lambda fault: fault.name)
def test_a_fault_gets_what_it_must(fault: Fault, tmp_path: Path, specimen: Path) -> None:
    judge_one(fault, tmp_path, specimen)


@pytest.mark.slow
@pytest.mark.parametrize("fault", draw_faults(SEED + 1, LONG), ids=lambda fault: fault.name)
def test_one_of_a_thousand_faults_gets_what_it_must(fault: Fault, tmp_path: Path, specimen: Path) -> None:
    judge_one(fault, tmp_path, specimen)


@pytest.mark.slow
@pytest.mark.parametrize("category", CATEGORIES)
def test_a_fault_in_a_process_of_its_own(category: str, tmp_path: Path, specimen: Path) -> None:
    fault = next(fault for fault in draw_faults(SEED + 2, SHORT) if fault.category == category)
    verdict = judge(fault, tmp_path / "place", specimen, start_process)
    assert verdict.is_right, f"{fault.name} {fault.case.told}\n{verdict.got}: {verdict.why}"


def test_the_draw_is_seeded_and_even() -> None:
    faults = draw_faults(SEED, LONG)
    assert len(faults) == LONG
    assert len({fault.name for fault in faults}) == LONG
    assert max(Counter(fault.generator for fault in faults).values()) <= LONG * LARGEST_SHARE
    assert {fault.category for fault in faults} == set(CATEGORIES)
    again, other = draw_faults(SEED, LONG), draw_faults(SEED + 1, LONG)
    assert [fault.case.told for fault in again] == [fault.case.told for fault in faults]
    assert [fault.case.told for fault in other] != [fault.case.told for fault in faults]
