"""How commands end: one line and an exit code, or the traceback of a defect."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segplus.__main__ import build_parser, main
from segplus.commands.endings import EXIT_CODES, end_command
from segplus.errors import InputError

ROOT = Path(__file__).parents[1]
STUCK = "import time\nfrom segplus.commands.endings import end_command\n"
STUCK += "def work():\n    print('started', flush=True)\n    time.sleep(60)\nraise SystemExit(end_command(work))"


def raise_error(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("a.png: damaged", fix="remove it"), 2, "error: a.png: damaged\n  fix: remove it\n"),
        (PermissionError(errno.EACCES, "", "/x/y"), 2, "error: /x/y: no permission"),
        (FileNotFoundError(errno.ENOENT, "", "a.png"), 2, "error: a.png: no such file or folder"),
        (OSError(errno.EIO, "Input/output error", "a.png"), 2, "error: a.png: Input/output error"),
        (KeyboardInterrupt(), 130, "interrupted (Ctrl-C)"),
    ],
)
def test_one_message_and_an_exit_code(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end_command(lambda: raise_error(error)) == code
    told = capsys.readouterr().err
    assert text in told
    assert "Traceback" not in told


def test_every_exit_code_is_documented() -> None:
    page = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8").replace("|", " ")
    page = " ".join(page.split())
    for code in ("0 done", "1 ", "2 a mistake", "3 training diverged", "130 Ctrl-C", "143 SIGTERM"):
        assert code in EXIT_CODES
        assert code in page
    assert "143" in build_parser()[0].format_help()


def test_a_defect_keeps_its_traceback_and_asks_for_a_report() -> None:
    work = "from segplus.commands.endings import end_command\nend_command(lambda: 1 // 0)"
    found = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, cwd=ROOT, check=False)
    assert found.returncode == 1
    assert "ZeroDivisionError" in found.stderr
    assert found.stderr.endswith("this is a defect of segplus: please report it with the command and the lines above\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_one_line(number: int, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # What a shell starts in the background ignores Ctrl-C, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(0.1)
    process.send_signal(number)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert len(told.strip().splitlines()) == 1
    assert told.strip().endswith("nothing is half written; repeat the command to go on")


def test_a_locale_without_utf8_and_a_reader_that_left() -> None:
    work = "from segplus.commands.endings import end_command\n"
    work += "raise SystemExit(end_command(lambda: print('m\\u00fcsli \\u2014 \\udcff') or 0))"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    found = subprocess.run([sys.executable, "-c", work], capture_output=True, env=environment, cwd=ROOT, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, b"m\\xfcsli \\u2014 \\udcff\n", b"")
    reader, writer = os.pipe()
    os.close(reader)
    left = subprocess.run([sys.executable, "-c", work], stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    os.close(writer)
    assert (left.returncode, left.stderr) == (141, b"")


def test_folds_in_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folds", str(tmp_path / "absent")]) == 2
    assert "no such folder" in capsys.readouterr().err
