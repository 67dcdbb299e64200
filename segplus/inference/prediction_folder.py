"""A folder of predictions: what made them, which are done, and what is known of each image."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segplus.errors import InputError
from segplus.files import explain_refusals, sweep_leftovers, write_text

NOTE_FILE = "segplus_predictions.json"
RECORDS_FILE = "segplus_records.jsonl"


def claim_folder(output: Path, wanted: Mapping[str, Any], targets: Sequence[Path]) -> None:
    """Note in the folder what its files are made with.

    Args:
        output: The folder.
        wanted: What they are made with, in JSON's types.
        targets: The files that will be written.
    Raises:
        InputError: If those that lie there were made with something else, or a file that no prediction wrote stands in
            the place of one.
    """
    path = output / NOTE_FILE
    before = read_note(path)
    if before is not None:
        if before != wanted:
            stated = [*wanted, *before]
            key = next(key for key in stated if (key in before, before.get(key)) != (key in wanted, wanted.get(key)))
            raise InputError(
                f"{output}: holds predictions made otherwise ({key})",
                found=before.get(key),
                allowed=wanted.get(key),
                fix="name another folder, or remove this one",
            )
        for parent in {target.parent for target in targets}:
            sweep_leftovers(parent)
        return
    standing = next((target for target in targets if target.exists()), None)
    if standing is not None:
        raise InputError(
            f"{standing}: lies where a prediction would, and {output} has no {NOTE_FILE}",
            fix="name another folder, or move the file away",
        )
    write_text(path, json.dumps(wanted, indent=2) + "\n")


def read_note(path: Path) -> dict[str, Any] | None:
    """Return what a folder's predictions were made with, or None where there is no note.

    Raises:
        InputError: If the note is damaged.
    """
    if not os.path.lexists(path):
        return None
    with explain_refusals(path):
        content = path.read_bytes()
    try:
        note = json.loads(content)
    except (ValueError, RecursionError):
        note = None
    if not isinstance(note, dict):
        raise InputError(
            f"{path}: damaged, so nothing says what made the predictions beside it",
            fix="remove the folder, or name another one",
        )
    return note


class Records:
    """What is known of each image, one line of JSON an image; a line that a kill cut off counts as none.

    Args:
        output: The folder of the predictions.
        keys: What a record must hold; one without is as good as none.
    """

    def __init__(self, output: Path, keys: Sequence[str]) -> None:
        self.path, self.keys = output / RECORDS_FILE, tuple(keys)
        self.found: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            with explain_refusals(self.path):
                lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            for line in lines:
                self._remember(line)
            self._drop_cut_line()

    def _remember(self, line: str) -> None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return
        if isinstance(record, dict) and {"image", *self.keys} <= record.keys():
            self.found[str(record["image"])] = record

    def _drop_cut_line(self) -> None:
        """End the last line, so that the next record begins one of its own."""
        with explain_refusals(self.path), self.path.open("rb+") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                file.write(b"\n")

    def add(self, record: dict[str, Any]) -> None:
        """Append a record to the file; the last one of an image counts."""
        self.found[record["image"]] = record
        with explain_refusals(self.path), self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def __contains__(self, image: str) -> bool:
        """Return whether there is a record of the image."""
        return image in self.found

    def list(self, images: Sequence[str]) -> list[dict[str, Any]]:
        """Return the records of images, in their order; those without one are left out."""
        return [self.found[image] for image in images if image in self.found]
