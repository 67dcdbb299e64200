"""Regular expressions in a recipe: one group names what counts."""

from __future__ import annotations

import re

from segplus.errors import InputError


def check_pattern(key: str, pattern: str | None) -> None:
    """Refuse what is no regular expression with a group; None passes.

    Args:
        key: Where it stands in a recipe, for messages.
        pattern: The expression.
    Raises:
        InputError: If so.
    """
    if pattern is None:
        return
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise InputError(f"{key}: not a regular expression ({error})", found=pattern) from None
    if not groups:
        raise InputError(f"{key}: no group", found=pattern, fix="put ( ) around the part that counts")
