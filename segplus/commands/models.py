"""Which models there are and when to choose one: what `segplus models` prints."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from segplus.errors import InputError, suggest
from segplus.models.catalogue import describe_row, find_row, list_names, render_list


def run(options: argparse.Namespace, _: Sequence[str]) -> int:
    """List the models, or say what one is.

    Raises:
        InputError: If there is none of that name.
    """
    if options.name is None:
        print(render_list(), end="")
        return 0
    row = find_row(options.name)
    if row is None:
        raise InputError(f"no model or head '{options.name}'", fix=suggest(options.name, list_names()))
    print(describe_row(row))
    return 0
