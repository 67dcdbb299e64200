"""What each verb is for, its options and its examples. Nothing heavy is imported here, so that every help is quick."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DATA = "folder, manifest or Hub id of a data set, or a recipe (.yaml) whose data section is used"
CHECKPOINT = "folder or Hub id of any semantic-segmentation model"
RECIPE = "a recipe (.yaml), or the name of one that segplus brings: see segplus recipes"
MASK_FORMATS = ("ids", "palette", "overlay")
_PROTOCOLS = ("fixed", "original", "sliding")


@dataclass(frozen=True)
class Verb:
    """One subcommand, as its help tells of it.

    Args:
        purpose: One line for people.
        add_options: Adds its options.
        examples: Command lines.
        sections: Sections of a recipe whose keys it takes as options, "" for all of them.
    """

    purpose: str
    add_options: Callable[[argparse.ArgumentParser], None]
    examples: tuple[str, ...]
    sections: tuple[str, ...] = ()


def complete_recipe(**_: object) -> list[str]:
    """Return what a shell may complete a recipe's name to, as argcomplete asks for it."""
    from segplus.recipe.shipped import list_recipes

    return list(list_recipes())


def _add_train_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("recipe", help=RECIPE).completer = complete_recipe  # type: ignore[attr-defined]


def _add_inspect_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("data", help=DATA)
    verb.add_argument("--recipe", help="recipe whose data section says what the masks mean")
    verb.add_argument("--json", action="store_true", help="print JSON for programs")
    verb.add_argument("--page", type=Path, help="HTML page with images to write as well")


def _add_new_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("data", help="folder, manifest or Hub id of a data set")
    verb.add_argument("-o", "--output", type=Path, default=Path("recipe.yaml"), help="file, default recipe.yaml")


def _add_models_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", nargs="?", help="a model_type or a head, to see what it is and the lines of its recipe")


def _add_recipes_options(verb: argparse.ArgumentParser) -> None:
    actions = verb.add_subparsers(dest="action", metavar="ACTION")
    show = actions.add_parser("show", help="print a recipe to copy", allow_abbrev=False)
    name = show.add_argument("name", help="as segplus recipes lists it, such as camvid/segformer_b0")
    name.completer = complete_recipe  # type: ignore[attr-defined]
    explain = actions.add_parser("explain", help="print what a key means", allow_abbrev=False)
    explain.add_argument("key", help="a key or a section, such as data.void, losses or evaluation")
    actions.add_parser("schema", help="print a JSON schema, for editors", allow_abbrev=False)
    actions.add_parser("reference", help="print every key as Markdown: docs/recipe.md", allow_abbrev=False)


def _add_evaluate_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("checkpoint", help=CHECKPOINT)
    verb.add_argument("data", help=DATA)
    _add_scoring_options(verb, "runs/evaluation")
    verb.add_argument("--per-image", default="per_image.csv", help="file of scores per image, .csv or .parquet")
    verb.add_argument("--save-predictions", choices=MASK_FORMATS, help="also write the predicted masks")


def _add_compare_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("checkpoints", nargs="+", help="two or more; the first is what the others are compared with")
    verb.add_argument("--data", required=True, help=DATA)
    _add_scoring_options(verb, "runs/comparison")


def _add_folds_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("runs", nargs="+", help="the folder that holds fold-0, fold-1, ..., or each fold's own folder")
    verb.add_argument("-o", "--output", help="folder of folds.json and folds.md; default: the one that holds the folds")


def _add_predict_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("checkpoint", help=CHECKPOINT)
    verb.add_argument("input", help="image, folder, or a quoted pattern such as 'photos/*.jpg'")
    verb.add_argument("-o", "--output", required=True, help="folder, or a .png for one image")
    verb.add_argument(
        "--kind", choices=MASK_FORMATS, default="ids", help="grey ids, ids with colours, or colours over the photo"
    )
    _add_prediction_options(verb, "as the pipeline does")


def _add_scoring_options(verb: argparse.ArgumentParser, output: str) -> None:
    """Add what the verbs that score a split share; `output` is the folder of the results."""
    verb.add_argument("-o", "--output", default=output, help=f"folder of the results, default {output}")
    verb.add_argument("--recipe", help="recipe that says what the masks mean; default: the one beside the checkpoint")
    verb.add_argument("--split", help="default: test, or else validation, or else train")
    _add_prediction_options(verb, "the recipe's, or fixed")


def _add_prediction_options(verb: argparse.ArgumentParser, protocol: str) -> None:
    """Add what the verbs that predict share; `protocol` says which one is the default."""
    verb.add_argument("--protocol", choices=_PROTOCOLS, help=f"how a prediction is formed; default: {protocol}")
    verb.add_argument("--trust-remote-code", action="store_true", help="run the model code that lies in a checkpoint")


VERBS = {
    "train": Verb(
        "train, evaluate, report and save a model, as a recipe says",
        _add_train_options,
        (
            "segplus train quickstart",
            "segplus train my_recipe.yaml --learning_rate 1e-4 --data.void '[11]'",
            "accelerate launch -m segplus train my_recipe.yaml    # several processes, as accelerate config says",
        ),
        ("",),
    ),
    "inspect": Verb(
        "read every pair of a data set once and say what is wrong with it",
        _add_inspect_options,
        ("segplus inspect path/to/folder", "segplus inspect my_recipe.yaml --page inspection.html"),
        ("data",),
    ),
    "new": Verb(
        "write a recipe that fits a data set",
        _add_new_options,
        ("segplus new path/to/folder", "segplus new path/to/folder -o birds.yaml --data.void '[255]'"),
        ("data",),
    ),
    "recipes": Verb(
        "list the recipes that segplus brings; show one, or explain what a key means",
        _add_recipes_options,
        (
            "segplus recipes",
            "segplus recipes show camvid/segformer_b0 > my_recipe.yaml",
            "segplus recipes explain data.void",
            "segplus recipes schema > recipe.schema.json",
        ),
    ),
    "models": Verb(
        "list the models and heads, with when to choose which",
        _add_models_options,
        ("segplus models", "segplus models deeplabv3plus"),
    ),
    "evaluate": Verb(
        "score a checkpoint on a data set",
        _add_evaluate_options,
        (
            "segplus evaluate runs/my_recipe path/to/folder",
            "segplus evaluate runs/my_recipe my_recipe.yaml --protocol sliding --window_px '[512, 512]'",
        ),
        ("data", "evaluation"),
    ),
    "compare": Verb(
        "score several checkpoints on one data set, image by image",
        _add_compare_options,
        ("segplus compare runs/a runs/b --data path/to/folder",),
        ("data", "evaluation"),
    ),
    "folds": Verb(
        "mean and spread over the runs of all folds",
        _add_folds_options,
        ("segplus folds runs/my_recipe",),
    ),
    "predict": Verb(
        "segment an image, a folder or a pattern",
        _add_predict_options,
        (
            "segplus predict runs/my_recipe photo.jpg -o mask.png",
            "segplus predict runs/my_recipe 'photos/*.jpg' -o overlays/ --kind overlay",
            "segplus predict runs/my_recipe photos/ -o masks/ --protocol sliding --flip true",
        ),
        ("evaluation.protocol",),
    ),
}
