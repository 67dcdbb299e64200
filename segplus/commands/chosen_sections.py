"""The data and evaluation sections that a verb's command line means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segplus.commands.options import VERBS
from segplus.recipe import DataRecipe, EvaluationRecipe, load_sections


def read_sections(
    verb: str, data: str | None, recipe: str | None, checkpoint: str | None, protocol: str | None, rest: Sequence[str]
) -> tuple[DataRecipe, EvaluationRecipe]:
    """Return the data and evaluation sections that a command line means.

    A recipe given as `data` counts first, then `--recipe`, then the recipe.yaml that a run left beside its checkpoint.
    """
    beside = Path(checkpoint) / "recipe.yaml" if checkpoint else None
    file = recipe or (str(beside) if beside is not None and beside.is_file() else None)
    if data is not None and data.endswith((".yaml", ".yml")):
        file, data = data, None
    chosen = [f"--evaluation.protocol.name={protocol}"] if protocol else []
    return load_sections(file, [*rest, *chosen], data, VERBS[verb].sections)
