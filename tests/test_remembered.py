"""What is remembered of a data set: used where it is whole, made anew where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segplus.data.contents import digest_contents, stamp_entries
from segplus.data.remembered import remember_json
from segplus.errors import InputError


class Counter:
    """Finds out the same value each time, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> list[int]:
        self.asked += 1
        return [1, 2, 3]


def test_a_value_is_found_out_once(tmp_path: Path) -> None:
    count = Counter()
    values = [remember_json(tmp_path / "new" / "entry", count) for _ in range(3)]
    assert values == [[1, 2, 3]] * 3
    assert count.asked == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["entry"]


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "renamed":
        path.rename(path.with_name("other"))
        return
    path.unlink()
    if how == "folder":
        path.mkdir()
        (path / "file").write_text("")
    elif how == "dangling link":
        path.symlink_to(path.with_name("absent"))
    elif how == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes({"empty": b"", "cut": content[:-1], "older": b"[1, 2]"}.get(how, b"\0" + content[1:]))


@pytest.mark.parametrize("how", ["empty", "cut", "flipped", "older", "renamed", "folder", "dangling link", "fifo"])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    count, entry = Counter(), tmp_path / "entry"
    remember_json(entry, count)
    damage(entry, how)
    used = tmp_path / "other" if how == "renamed" else entry
    assert remember_json(used, count) == [1, 2, 3]
    assert count.asked == 2
    assert [message.startswith(f"{used} is damaged") for message in caplog.messages] == [True]
    assert remember_json(used, count) == [1, 2, 3]
    assert count.asked == 2


def test_an_emptied_digest_is_no_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "a.png"
    file.write_bytes(b"content")
    first = digest_contents([str(file)], stamp_entries([str(file)]))
    (entry,) = (tmp_path / "cache" / "contents").iterdir()
    entry.write_bytes(b"")
    assert digest_contents([str(file)], stamp_entries([str(file)])) == first


def test_a_cache_folder_that_cannot_be_one_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    count = Counter()
    with pytest.raises(InputError, match="contents: a file lies where a folder is needed") as refused:
        remember_json(tmp_path / "file" / "contents" / "entry", count)
    assert "SEGPLUS_CACHE" in str(refused.value)
    assert count.asked == 0
