"""Progress: a bar on a terminal, a line every ten seconds elsewhere, nothing where nobody wants it."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from segplus import progress
from segplus.progress import Progress
from segplus.training.progress_lines import ProgressLines


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    return now


def go(clock: list[float], seconds: float, count: int = 10, **options: object) -> None:
    for _ in Progress(range(count), total=count, title="reading", unit="pairs", **options):
        clock[0] += seconds


def test_a_line_every_ten_seconds_where_there_is_no_terminal(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    go(clock, 4.0)
    assert capsys.readouterr().err.splitlines() == [
        "reading: 3/10 pairs, 0.25 a second, 28 s left",
        "reading: 6/10 pairs, 0.25 a second, 16 s left",
        "reading: 9/10 pairs, 0.25 a second, 4 s left",
    ]


def test_what_is_done_soon_says_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    go(clock, 0.9)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("way", ["show", "environment"])
def test_nothing_where_nobody_wants_it(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "environment":
        monkeypatch.setenv("TQDM_DISABLE", "1")
    go(clock, 60.0, show=way != "show")
    assert capsys.readouterr().err == ""


def test_an_unknown_total_and_a_line_of_somebody_else(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress[None](title="stream", unit="images") as bar:
        clock[0] += 9
        bar.restart_clock()
        clock[0] += 9
        bar.update(6)
        assert capsys.readouterr().err == ""
        clock[0] += 2
        bar.update(14)
    assert capsys.readouterr().err == "stream: 20 images, 1 a second\n"


def test_a_bar_on_a_terminal(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    go(clock, 20.0, count=3)
    assert "reading: 100%" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


def test_training_tells_how_far_it_is_unless_the_log_just_did(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ProgressLines()
    state = SimpleNamespace(max_steps=12, global_step=2, is_world_process_zero=True)
    lines.on_train_begin(None, state, None)
    for step in range(10):
        clock[0] += 6
        lines.on_step_end(None, state, None)
        if step == 4:
            lines.on_log(None, state, None)
    for _ in range(3):
        clock[0] += 6
        lines.on_prediction_step(None, state, None, eval_dataloader=range(3))
    assert capsys.readouterr().err.splitlines() == [
        "training: 2/10 steps, 0.167 a second, 48 s left",
        "training: 4/10 steps, 0.167 a second, 36 s left",
        "training: 7/10 steps, 0.167 a second, 18 s left",
        "training: 9/10 steps, 0.167 a second, 6 s left",
        "evaluation: 3/3 batches, 0.25 a second, 0 s left",
    ]
