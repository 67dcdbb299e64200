"""Bad inputs end in one message that names the file or key, or run; the generators are in tests/faults."""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest
from faults.__main__ import format_failure
from faults.catalogue import CATEGORIES, LARGEST_SHARE, draw_faults
from faults.fault import Fault
from faults.judging import judge
from faults.running import prepare, start_process

SEED = 20
SHORT, LONG = 90, 1200
GENERATORS = [f"{category}/{one.__name__}" for category, generators in CATEGORIES.items() for one in generators]


@pytest.fixture(scope="session")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the tiny data set and its trained run once for all workers of this run of pytest."""
    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "fault-specimen"
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


@lru_cache
def draw_long() -> list[Fault]:
    return draw_faults(SEED + 1, LONG)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("generator", GENERATORS)
def test_every_fault_of_a_generator_gets_what_it_must(generator: str, tmp_path: Path, specimen: Path) -> None:
    faults = [fault for fault in draw_long() if f"{fault.category}/{fault.generator}" == generator]
    verdicts = [judge(fault, tmp_path / str(fault.number), specimen) for fault in faults]
    assert [format_failure(verdict) for verdict in verdicts if not verdict.is_right] == []


@pytest.mark.slow
@pytest.mark.parametrize("category", CATEGORIES)
def test_a_fault_in_a_process_of_its_own(category: str, tmp_path: Path, specimen: Path) -> None:
    fault = next(fault for fault in draw_faults(SEED + 2, LONG) if fault.category == category)
    verdict = judge(fault, tmp_path / "place", specimen, start_process)
    assert verdict.is_right, f"{fault.name} {fault.case.told}\n{verdict.got}: {verdict.why}"


def test_the_draw_is_seeded_and_even() -> None:
    faults = draw_long()
    assert len(faults) == LONG
    assert len({fault.name for fault in faults}) == LONG
    assert max(Counter(fault.generator for fault in faults).values()) <= LONG * LARGEST_SHARE
    assert {f"{fault.category}/{fault.generator}" for fault in faults} == set(GENERATORS)
    drawn = [[fault.case.told for fault in draw_faults(seed, SHORT)] for seed in (SEED, SEED, SEED + 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
