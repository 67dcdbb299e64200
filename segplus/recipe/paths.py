"""Paths in a recipe: ${VARIABLES} and ~ stand for what the machine at hand says; each fold has a folder of its own."""

from __future__ import annotations

import os
import re
from pathlib import Path

from segplus.errors import InputError

_FOLD = re.compile(r"fold-\d+")
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


def expand_path(text: str, key: str) -> str:
    """Return a path with every environment variable and `~` filled in.

    Args:
        text: The path as the recipe has it.
        key: The recipe's key, for the message.

    Raises:
        InputError: If a variable is not set.
    """

    def fill(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        if not os.environ.get(name):
            raise InputError(
                f"{key}: the environment variable {name} is not set", found=text, fix=f"export {name}=FOLDER"
            )
        return os.environ[name]

    return os.path.expanduser(_VARIABLE.sub(fill, text))


def is_fold_folder(name: str) -> bool:
    """Return whether a folder's name is that of a fold: fold-0, fold-1, ..."""
    return _FOLD.fullmatch(name) is not None


def place_fold(output_dir: str, fold: int) -> str:
    """Return the folder of one fold inside a run's folder; of another fold's folder, the one beside it."""
    folder = Path(output_dir)
    return str((folder.parent if is_fold_folder(folder.name) else folder) / f"fold-{fold}")
