"""The `segplus` command: one subcommand a verb, each a thin call."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from segplus.commands.compare import compare
from segplus.commands.evaluate import evaluate
from segplus.commands.folds import render_folds, summarize_folds
from segplus.commands.inspect import inspect
from segplus.commands.predict import predict
from segplus.errors import EXIT_CODE_INPUT, InputError, describe_error
from segplus.inference.prediction_files import KINDS
from segplus.inference.scoring import join_processes
from segplus.recipe import DataRecipe, EvaluationRecipe, load_sections
from segplus.reporting.table import format_class_table, format_comparison_table

_DATA = "folder, manifest or Hub id of a data set, or a recipe (.yaml) whose data section is used"
_REST = (
    "Keys of the recipe's data and evaluation sections may follow: --data.void '[11]' --evaluation.protocol.flip true"
)
_PROTOCOLS = ("fixed", "original", "sliding")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every verb; training is `accelerate launch run_segmentation.py RECIPE.yaml`."""
    parser = argparse.ArgumentParser(prog="segplus", description=build_parser.__doc__, allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)

    verb = _add_verb(verbs, "inspect", run_inspect, "read every pair of a data set once and say what is wrong with it")
    verb.add_argument("data", help=_DATA)
    verb.add_argument("--recipe", help="recipe whose data section says what the masks mean")
    verb.add_argument("--json", action="store_true", help="print JSON for programs")
    verb.add_argument("--page", type=Path, help="HTML page with pictures to write as well")

    verb = _add_verb(verbs, "evaluate", run_evaluate, "score a checkpoint on a data set")
    verb.add_argument("checkpoint", help="folder or Hub id of any semantic-segmentation model")
    verb.add_argument("data", help=_DATA)
    _add_evaluation_options(verb, "runs/evaluation")
    verb.add_argument("--per-image", default="per_image.csv", help="file of scores per image, .csv or .parquet")
    verb.add_argument("--save-predictions", choices=KINDS, help="also write the predicted masks")

    verb = _add_verb(verbs, "compare", run_compare, "score several checkpoints on one data set, image by image")
    verb.add_argument("checkpoints", nargs="+", help="two or more; the first is what the others are compared with")
    verb.add_argument("--data", required=True, help=_DATA)
    _add_evaluation_options(verb, "runs/comparison")

    verb = _add_verb(verbs, "folds", run_folds, "mean and spread over the runs of all folds", epilog=None)
    verb.add_argument("runs", nargs="+", help="the folder that holds fold-0, fold-1, ..., or each fold's own folder")
    verb.add_argument("-o", "--output", help="folder of folds.json and folds.md; default: the one that holds the folds")

    verb = _add_verb(verbs, "predict", run_predict, "segment a picture, a folder or a pattern")
    verb.add_argument("checkpoint", help="folder or Hub id of any semantic-segmentation model")
    verb.add_argument("input", help="picture, folder, or a quoted pattern such as 'photos/*.jpg'")
    verb.add_argument("-o", "--output", required=True, help="folder, or a .png for one picture")
    verb.add_argument(
        "--kind", choices=KINDS, default="ids", help="grey ids, ids with colours, or colours over the photo"
    )
    verb.add_argument(
        "--protocol", choices=_PROTOCOLS, help="how a prediction is formed; default: as the pipeline does"
    )
    _add_trust_option(verb)
    return parser


def _add_verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace, Sequence[str]], int],
    text: str,
    epilog: str | None = _REST,
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog, allow_abbrev=False
    )
    verb.set_defaults(run=run)
    return verb


def _add_evaluation_options(verb: argparse.ArgumentParser, output: str) -> None:
    verb.add_argument("-o", "--output", default=output, help=f"folder of the results, default {output}")
    verb.add_argument("--recipe", help="recipe that says what the masks mean; default: the one beside the checkpoint")
    verb.add_argument("--split", help="default: test, or else validation, or else train")
    verb.add_argument(
        "--protocol", choices=_PROTOCOLS, help="how a prediction is formed; default: the recipe's, or fixed"
    )
    _add_trust_option(verb)


def _add_trust_option(verb: argparse.ArgumentParser) -> None:
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


def run_inspect(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print what a data set holds; 1 when something would break training."""
    section, _ = read_sections(options.data, options.recipe, None, None, rest)
    return inspect(section, as_json=options.json, page=options.page)


def run_evaluate(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Score a checkpoint and print the table of classes."""
    section, recipe = read_sections(options.data, options.recipe, options.checkpoint, options.protocol, rest)
    metrics = evaluate(
        options.checkpoint,
        section,
        options.output,
        recipe=recipe,
        split=options.split,
        per_image=options.per_image,
        save_predictions=options.save_predictions,
        trust_remote_code=options.trust_remote_code,
    )
    if join_processes().is_main_process:
        for name, scores in metrics["evaluations"].items():
            print(f"{name} split, {scores['images']} images\n{format_class_table(scores, metrics['class_names'])}")
        print(f"written to {options.output}")
    return 0


def run_compare(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Compare checkpoints and print each one's mIoU with its difference from the first."""
    section, recipe = read_sections(options.data, options.recipe, options.checkpoints[0], options.protocol, rest)
    result = compare(
        options.checkpoints,
        section,
        options.output,
        recipe=recipe,
        split=options.split,
        trust_remote_code=options.trust_remote_code,
    )
    if join_processes().is_main_process:
        print_comparison(options, result)
    return 0


def print_comparison(options: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """Print each checkpoint's mIoU with what it gains on the first, and the classes."""
    for number, (name, scores) in enumerate(zip(options.checkpoints, result["scores"], strict=True), start=1):
        line = f"{number}: {name}: mIoU {100 * scores['mean_iou']:.2f} %"
        if name in result["differences"]:
            change = result["differences"][name]["mean_iou"]
            gain, low, high = (100 * change[key] for key in ("difference", "low", "high"))
            line += f"  ({gain:+.2f}, 95 % {low:+.2f} to {high:+.2f}, p = {change['p_value']:.3f})"
        print(line)
    print(f"{result['split']} split, {result['images']} images\n{format_comparison_table(result)}")
    print(f"written to {options.output}")


def run_folds(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Summarize the runs of all folds and print the tables."""
    if rest:
        raise InputError(f"command line: '{rest[0]}' is no option of segplus folds", allowed="RUN... --output FOLDER")
    summary = summarize_folds(options.runs, options.output)
    print(render_folds(summary))
    print(f"folds.json and folds.md lie in {summary['written_to']}")
    return 0


def run_predict(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Write the label map of each picture."""
    _, recipe = read_sections(None, None, options.checkpoint, options.protocol, rest)
    written = predict(
        options.checkpoint,
        options.input,
        options.output,
        protocol=recipe.protocol,
        kind=options.kind,
        trust_remote_code=options.trust_remote_code,
    )
    print(f"{len(written)} pictures lie in {options.output}" if len(written) != 1 else f"written: {written[0]}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code: 0 done, 1 `inspect` found what breaks training, 2 a mistake."""
    options, rest = build_parser().parse_known_args(arguments)
    try:
        with warnings.catch_warnings():
            # Pictures of a hundred megapixels are what windows are for.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return int(options.run(options, rest))
    except InputError as error:
        print(f"error: {describe_error(error)}", file=sys.stderr)
        return EXIT_CODE_INPUT


if __name__ == "__main__":
    sys.exit(main())
