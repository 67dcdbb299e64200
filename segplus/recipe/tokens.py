"""Hub tokens in a recipe: a recipe is saved, printed and pushed, so none may be part of it."""

from __future__ import annotations

import re

from segplus.errors import InputError

_TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}")


def refuse_tokens(value: object, where: str, file: str) -> None:
    """Refuse a token anywhere in a recipe, before the recipe is written anywhere; the message does not repeat it.

    Args:
        value: A recipe or a part of it, as YAML gives it.
        where: Dotted key of the part; empty for the whole.
        file: The recipe's file name, for messages.
    Raises:
        InputError: If a key or a text holds a Hub token.
    """
    if isinstance(value, dict):
        for key, entry in value.items():
            refuse_tokens(str(key), where, file)
            refuse_tokens(entry, f"{where}.{key}" if where else str(key), file)
    elif isinstance(value, list | tuple):
        for entry in value:
            refuse_tokens(entry, where, file)
    elif isinstance(value, str) and _TOKEN.search(value):
        raise InputError(
            f"{file}: {where or 'recipe'} holds a Hub token",
            found="hf_...",
            fix="take it out and log in with `hf auth login`; a token that was in a shared file should be revoked",
        )
