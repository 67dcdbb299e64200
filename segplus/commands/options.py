"""What each verb is for, its options and its examples. Nothing heavy is imported here, so that every help is quick."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DATA = "folder, manifest or Hub id of a data set, or a recipe (.yaml) whose data section is used"
CHECKPOINT = "folder or Hub id of any semantic-segmentation model"
RECIPE = "a recipe (.yaml), or the name of one that comes with segplus: see segplus recipes"
MASK_FORMATS = ("ids", "palette", "overlay")
EXPORT_FORMATS = ("onnx", "openvino", "torch_export")
OUTPUT_KINDS = (
    *MASK_FORMATS,
    *("contours", "confidence", "uncertainty", "disagreement", "probabilities", "labelme", "coco"),
)
_PREDICTED = (
    "image, folder, quoted pattern such as 'photos/*.jpg', - for a list of files on stdin, or a data set of the "
    "datasets library: a saved folder, or NAME:SPLIT"
)
_PROTOCOLS = ("fixed", "original", "sliding")


def name_output(text: str) -> str:
    """Return a path to write; an empty one, from a variable of a shell that is not set, would be this folder.

    Raises:
        argparse.ArgumentTypeError: If it is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; name a folder or a file, or . for this folder")
    return text


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
    verb.add_argument("-o", "--output", type=name_output, default="recipe.yaml", help="file, default recipe.yaml")


def _add_models_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", nargs="?", help="a model_type or head: say what it is and print its lines in a recipe")


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
    verb.add_argument("checkpoint", nargs="+", help=f"{CHECKPOINT}; several, or a folder of folds, are an ensemble")
    verb.add_argument("data", help=DATA)
    _add_scoring_options(verb, "runs/evaluation")
    verb.add_argument("--per-image", default="per_image.csv", help="file of scores per image, .csv or .parquet")
    verb.add_argument("--save-predictions", choices=MASK_FORMATS, help="also write the predicted masks")


def _add_compare_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "checkpoints",
        nargs="+",
        help="two or more; the others are compared with the first; a folder of folds counts as one, an ensemble",
    )
    verb.add_argument("--data", required=True, help=DATA)
    _add_scoring_options(verb, "runs/comparison")


def _add_thresholds_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("checkpoint", nargs="+", help=f"{CHECKPOINT}; several, or a folder of folds, are an ensemble")
    verb.add_argument("data", help=DATA)
    verb.add_argument(
        "--for", dest="classes", action="append", required=True, metavar="CLASS", help="a class; repeat it for several"
    )
    rule = verb.add_mutually_exclusive_group(required=True)
    rule.add_argument("--recall", type=float, metavar="R", help="choose the highest threshold with this recall")
    rule.add_argument("--f-beta", type=float, metavar="BETA", help="choose the best F score; 1 balances the two errors")
    rule.add_argument("--cost", type=float, metavar="N", help="choose the least cost, a miss costing N false alarms")
    verb.add_argument("--by", choices=("pixels", "objects"), default="pixels", help="what is counted; default: pixels")
    verb.add_argument(
        "-o", "--output", type=name_output, help="folder of the results; default: thresholds in the checkpoint's folder"
    )
    verb.add_argument("--recipe", help="recipe that says what the masks mean; default: the one beside the checkpoint")
    verb.add_argument("--split", help="default: validation, or else test, or else train")
    _add_prediction_options(verb, "the recipe's, or fixed")


def _add_folds_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("runs", nargs="+", help="the folder that holds fold-0, fold-1, ..., or each fold's own folder")
    verb.add_argument(
        "-o",
        "--output",
        type=name_output,
        help="folder of folds.json and folds.md; default: the one that holds the folds",
    )


def _add_predict_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("checkpoint", nargs="+", help=f"{CHECKPOINT}; several, or a folder of folds, are an ensemble")
    verb.add_argument("input", help=_PREDICTED)
    verb.add_argument("--image-column", metavar="COLUMN", help="of a data set: the column of the images")
    verb.add_argument("-o", "--output", type=name_output, required=True, help="folder, or a .png for one image")
    verb.add_argument(
        "--kind",
        choices=OUTPUT_KINDS,
        action="append",
        help="what is written: grey ids (the default), ids with colours, colours over the photo, outlines, grey "
        "confidence, uncertainty (entropy) or disagreement, probabilities (.npz), files of labelme, one COCO file; "
        "repeat it for several",
    )
    verb.add_argument("--measure", metavar="TABLE", help="areas and objects: a .csv, .parquet or .json in the folder")
    verb.add_argument(
        "--pixel-size",
        metavar="LENGTH",
        help="side of a pixel, such as 0.05mm, or file: what each image states, of a GeoTIFF the size on the ground",
    )
    verb.add_argument(
        "--objects-of",
        action="append",
        metavar="CLASS",
        help="a class whose objects are measured; repeat it for several; default: all that are not called background",
    )
    verb.add_argument("--contours", action="store_true", help="also list the outline of each object in the table")
    verb.add_argument("--gallery", action="store_true", help="also write index.html, which shows all images")
    verb.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="number type in which the network computes; default: float32",
    )
    verb.add_argument("--batch", type=int, default=1, metavar="N", help="images that go through the network together")
    verb.add_argument(
        "--fold", action="store_true", help="fold BatchNorm into convolutions: faster; scores differ by rounding"
    )
    verb.add_argument("--compile", action="store_true", help="compile the network first: minutes, pays for many images")
    verb.add_argument(
        "--dropout-samples", type=int, default=0, metavar="N", help="for --kind disagreement: predictions with dropout"
    )
    _add_prediction_options(verb, "as the pipeline does")


def _add_export_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("checkpoint", help=CHECKPOINT)
    verb.add_argument(
        "-o", "--output", type=name_output, required=True, help="folder; an older export there is replaced"
    )
    verb.add_argument("--format", choices=EXPORT_FORMATS, default="onnx", help="default: onnx")
    verb.add_argument("--size", help="dynamic, or height x width such as 512x1024; default: the image processor's")
    verb.add_argument(
        "--preprocessing",
        choices=("beside", "inside", "both"),
        default="both",
        help="where images are resized and normalised: in run.py, in the graph, or a graph of each; default: both",
    )
    verb.add_argument("--quantize", choices=("static", "dynamic"), help="also write graphs of 8-bit integers")
    verb.add_argument(
        "--calibration-images", type=int, default=100, help="training images for --quantize static; default: 100"
    )
    verb.add_argument("--data", help=f"to measure mIoU of checkpoint and graphs, and to calibrate: {DATA}")
    verb.add_argument("--recipe", help="recipe that says what the masks mean; default: the one beside the checkpoint")
    verb.add_argument("--split", help="where mIoU is measured; default: test, or else validation, or else train")
    verb.add_argument("--parity-images", type=int, help="measure on only so many images of the split, evenly spread")
    verb.add_argument("--timed-runs", type=int, default=20, help="how often each graph is timed, or 0; default: 20")
    verb.add_argument("--trust-remote-code", action="store_true", help="run model code from the checkpoint")


def _add_scoring_options(verb: argparse.ArgumentParser, output: str) -> None:
    """Add what the verbs that score a split share; `output` is the folder of the results."""
    verb.add_argument(
        "-o", "--output", type=name_output, default=output, help=f"folder of the results; default: {output}"
    )
    verb.add_argument("--recipe", help="recipe that says what the masks mean; default: the one beside the checkpoint")
    verb.add_argument("--split", help="default: test, or else validation, or else train")
    _add_prediction_options(verb, "the recipe's, or fixed")


def _add_prediction_options(verb: argparse.ArgumentParser, protocol: str) -> None:
    """Add what the verbs that predict share; `protocol` says which one is the default."""
    _add_decision_options(verb)
    verb.add_argument("--protocol", choices=_PROTOCOLS, help=f"how a prediction is formed; default: {protocol}")
    verb.add_argument("--trust-remote-code", action="store_true", help="run model code from the checkpoint")


def _add_decision_options(verb: argparse.ArgumentParser) -> None:
    """Add what says how probabilities become a label map, over what is stored with the checkpoint."""
    verb.add_argument(
        "--threshold",
        action="append",
        metavar="CLASS=P",
        help="the probability from which on a pixel gets the class; repeat it for several",
    )
    verb.add_argument(
        "--fallback",
        metavar="CLASS",
        help="the class of pixels whose class is below its threshold; default: background, if there is such a class",
    )
    verb.add_argument(
        "--uncertain-below", type=float, metavar="P", help="pixels whose class is less probable get no class (255)"
    )
    verb.add_argument(
        "--decision",
        metavar="FILE",
        help="a segplus_decision.json, or none; default: the one in the checkpoint",
    )


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
        "list the recipes that come with segplus, show one, or explain a key",
        _add_recipes_options,
        (
            "segplus recipes",
            "segplus recipes show camvid/segformer_b0 > my_recipe.yaml",
            "segplus recipes explain data.void",
            "segplus recipes schema > recipe.schema.json",
        ),
    ),
    "models": Verb(
        "list the models and heads, and say when to choose which",
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
        ("data", "evaluation", "postprocess"),
    ),
    "compare": Verb(
        "score several checkpoints on one data set, image by image",
        _add_compare_options,
        ("segplus compare runs/a runs/b --data path/to/folder",),
        ("data", "evaluation", "postprocess"),
    ),
    "thresholds": Verb(
        "choose, on a split, the probability from which on a class is predicted, and store it in the checkpoint",
        _add_thresholds_options,
        (
            "segplus thresholds runs/my_recipe path/to/folder --for crack --recall 0.95",
            "segplus thresholds runs/my_recipe path/to/folder --for crack --for rust --cost 20 --by objects",
        ),
        ("data", "evaluation", "postprocess"),
    ),
    "folds": Verb(
        "show the mean and spread of the scores over the runs of all folds",
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
            "segplus predict runs/folds photos/ -o out/ --kind ids --kind uncertainty --measure areas.csv --gallery",
        ),
        ("evaluation.protocol", "postprocess"),
    ),
    "export": Verb(
        "write a checkpoint as a folder for machines without segplus, and measure what differs there",
        _add_export_options,
        (
            "segplus export runs/my_recipe -o exported/",
            "segplus export runs/my_recipe -o exported/ --data path/to/folder --quantize static",
            "segplus export runs/my_recipe -o exported/ --format openvino --size 512x1024",
        ),
        ("data",),
    ),
}
