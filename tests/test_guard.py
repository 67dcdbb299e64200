"""Losses and gradients that are not finite: skipped, counted, and stopped when they repeat."""

from __future__ import annotations

import math

import pytest

from segplus.training.guard import DivergenceGuard, TrainingDivergedError


def test_three_bad_losses_running_name_the_files() -> None:
    guard = DivergenceGuard()
    guard.watch_loss(math.nan, 1, ["a.png"])
    guard.watch_loss(math.nan, 2, ["b.png"])
    with pytest.raises(TrainingDivergedError, match=r"3 steps running, last at step 3\n  batch: c.png, d.png"):
        guard.watch_loss(math.nan, 3, ["c.png", "d.png"])


def test_a_good_step_between_bad_ones_starts_the_count_anew() -> None:
    guard = DivergenceGuard()
    for step, value in enumerate((math.nan, math.inf, 1.0, math.nan, math.nan, 0.0, math.nan), start=1):
        guard.watch_loss(value, step, [])


def test_the_micro_batches_of_a_step_count_as_one() -> None:
    guard = DivergenceGuard()
    for value in (math.nan, math.inf, math.nan, math.nan):
        guard.watch_loss(value, 1, [])
    for value in (math.nan, 1.0):  # half of a step's micro-batches make it a bad one
        guard.watch_loss(value, 2, [])
    guard.watch_loss(1.0, 3, [])
    with pytest.raises(TrainingDivergedError, match=r"3 steps running, last at step 3\n  batch: b.png"):
        guard.watch_loss(math.nan, 3, ["b.png"])


def test_bad_steps_of_a_run_that_goes_on_later_are_new_ones() -> None:
    guard = DivergenceGuard()
    for step in (1, 2, 8, 9):
        guard.watch_loss(math.nan, step, [])


def test_a_gradient_that_is_not_finite_is_skipped_and_counted() -> None:
    guard = DivergenceGuard()
    assert [guard.watch_gradient(norm, 1) for norm in (1.0, math.inf, 2.0, math.nan, 0.0)] == [
        True,
        False,
        True,
        False,
        True,
    ]
    assert guard.skipped_steps == 2
    guard.watch_gradient(math.nan, 1)
    guard.watch_gradient(math.nan, 2)
    with pytest.raises(TrainingDivergedError, match="3 steps running, last at step 3"):
        guard.watch_gradient(math.nan, 3)
