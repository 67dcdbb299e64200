"""Paths in a recipe: ${VARIABLES} and ~ stand for what the machine at hand says."""

from __future__ import annotations

import os
import re

from segplus.errors import InputError

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
