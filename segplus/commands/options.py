"""Options and recipe keys that several verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from segplus.recipe import DataRecipe, EvaluationRecipe, load_sections

DATA = "folder, manifest or Hub id of a data set, or a recipe (.yaml) whose data section is used"
CHECKPOINT = "folder or Hub id of any semantic-segmentation model"
_PROTOCOLS = ("fixed", "original", "sliding")


def add_evaluation_options(verb: argparse.ArgumentParser, output: str) -> None:
    """Add what the verbs that score a split share; `output` is the folder of the results."""
    verb.add_argument("-o", "--output", default=output, help=f"folder of the results, default {output}")
    verb.add_argument("--recipe", help="recipe that says what the masks mean; default: the one beside the checkpoint")
    verb.add_argument("--split", help="default: test, or else validation, or else train")
    add_prediction_options(verb, "the recipe's, or fixed")


def add_prediction_options(verb: argparse.ArgumentParser, protocol: str) -> None:
    """Add what the verbs that predict share; `protocol` says which one is the default."""
    verb.add_argument("--protocol", choices=_PROTOCOLS, help=f"how a prediction is formed; default: {protocol}")
    verb.add_argument("--trust-remote-code", action="store_true", help="run the model code that lies in a checkpoint")


def read_sections(
    data: str | None, recipe: str | None, checkpoint: str | None, protocol: str | None, rest: Sequence[str]
) -> tuple[DataRecipe, EvaluationRecipe]:
    """Return the data and evaluation sections that a command line means.

    A recipe given as `data` counts first, then `--recipe`, then the recipe.yaml that a run left beside its checkpoint.
    """
    beside = Path(checkpoint) / "recipe.yaml" if checkpoint else None
    file = recipe or (str(beside) if beside is not None and beside.is_file() else None)
    if data is not None and data.endswith((".yaml", ".yml")):
        file, data = data, None
    chosen = [f"--evaluation.protocol.name={protocol}"] if protocol else []
    return load_sections(file, [*rest, *chosen], data)
