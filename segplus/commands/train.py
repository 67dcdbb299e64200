"""One run, top to bottom: recipe, data, model, trainer, train, evaluate, report, push.

Usage:
    segplus train RECIPE [--key value ...]
    accelerate launch -m segplus train RECIPE [--key value ...]

`python run_segmentation.py RECIPE` is the same. The same command continues a run that died.
Exit codes: 0 done, 2 a mistake in the recipe or the data, or what the system refuses, 3 training diverged, 130 Ctrl-C,
143 SIGTERM; under a launcher of several processes 1 is the launcher's own. After Ctrl-C and SIGTERM a checkpoint is
written; a second one ends at once.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import set_seed

from segplus.commands.endings import end_command
from segplus.data import SegmentationData, check_splits, load_segmentation_dataset
from segplus.data.loading import require_splits
from segplus.errors import EXIT_CODE_DIVERGED, EXIT_CODE_INPUT, EXIT_CODE_SIGNAL
from segplus.inference import Predictor, evaluate_split
from segplus.inference.checkpoint import find_checkpoint
from segplus.inference.decision_file import DECISION_FILE, write_decision
from segplus.inference.example_predictions import predict_examples
from segplus.inference.scoring import build_evaluator, check_groups
from segplus.inference.trial import try_protocol
from segplus.models import load_model
from segplus.recipe import DecisionRecipe, Recipe, load_recipe
from segplus.recipe.shipped import find_recipe
from segplus.reporting.failures import describe_failures
from segplus.reporting.hub import prepare_repository, push_folder
from segplus.reporting.image_counts import ImageCounts, write_image_counts
from segplus.reporting.results import RunResults, name_repository, write_results
from segplus.reporting.table import format_class_table
from segplus.training import (
    SegmentationTrainer,
    TrainingDivergedError,
    build_image_processor,
    build_trainer,
    build_training_arguments,
    choose_precision,
    prepare_process,
)
from segplus.training.checkpoints import claim_output_dir, find_resumable_checkpoint
from segplus.training.held_rows import explain_lost_worker
from segplus.training.interruption import TrainingInterruptedError
from segplus.training.sets import list_parts
from segplus.training.signals import stop_on_signals


def train(recipe: Recipe) -> None:
    """Train, evaluate, report and push."""
    prepare_process()
    recipe = choose_precision(recipe)  # saved with the run
    arguments = build_training_arguments(recipe)
    output_dir = Path(str(arguments.output_dir))

    with arguments.main_process_first(desc="data"):
        data = load_segmentation_dataset(recipe.data)
        require_splits(data, recipe.data.channels)
        check_splits(data.splits, list_parts(recipe), warn=arguments.process_index == 0)

    with arguments.main_process_first(desc="metrics"):
        build_evaluator(recipe.evaluation, data.classes)  # what it cannot measure is told before training
    recipe.postprocess.check_classes(data.classes.names)
    set_seed(arguments.seed)
    with_head = recipe.auxiliary_loss_weight > 0
    loaded = load_model(recipe.model, data.classes, use_auxiliary_head=with_head, channels=recipe.data.channels)
    with arguments.main_process_first(desc="image processor"):
        image_processor = build_image_processor(recipe, data, loaded.model.config)
    if recipe.training.get("push_to_hub"):
        with arguments.main_process_first(desc="repository"):
            prepare_repository(name_repository(recipe, output_dir), bool(arguments.hub_private_repo))
    trainer = build_trainer(recipe, arguments, data, loaded, image_processor)
    measured = [name for name in ("validation", "test") if name in data.splits]
    for name in measured:
        check_groups(data.splits[name], recipe.evaluation)
    trial = Predictor(loaded.model, image_processor, recipe.evaluation.protocol, channels=recipe.data.channels)
    try_protocol(trial, [data.splits[name] for name in measured])

    with arguments.main_process_first(desc="output folder"):
        claim_output_dir(recipe, output_dir)
        checkpoint = find_resumable_checkpoint(output_dir, arguments.world_size)
    if trainer.is_world_process_zero():
        print("\n".join([*data.found, loaded.describe(), f"resuming from {checkpoint}" if checkpoint else ""]).rstrip())
    with stop_on_signals(trainer), explain_lost_worker(trainer.list_held_rows()):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.save_final_model()
    report_run(recipe, data, trainer, output_dir, measured)


def report_run(
    recipe: Recipe, data: SegmentationData, trainer: SegmentationTrainer, output_dir: Path, measured: list[str]
) -> None:
    """Score what was saved, the way it will be served, write the report and the card, and push.

    The model is read back from the folder, in float32, and scored image by image.

    Args:
        recipe: The recipe.
        data: The splits.
        trainer: At the end of its training.
        output_dir: The folder of the run, which holds the saved model.
        measured: The splits that are scored; the last one's scores stand on the card.
    """
    decision = DecisionRecipe(postprocess=recipe.postprocess)
    if decision.describe() and trainer.is_world_process_zero():
        write_decision(output_dir / DECISION_FILE, decision)
    trainer.accelerator.wait_for_everyone()
    saved = find_checkpoint(str(output_dir), trust_remote_code=recipe.model.trust_remote_code)
    predictor = saved.load(recipe.evaluation.protocol, trainer.args.device)
    evaluations: dict[str, dict[str, Any]] = {}
    counted: dict[str, ImageCounts] = {}
    for name in measured:
        started = time.perf_counter()
        evaluator = evaluate_split(predictor, data.splits[name], data.classes, recipe.evaluation, title=name)
        scores = evaluator.compute(*recipe.evaluation.list_bootstrap())
        counted[name] = [image.name for image in evaluator.images], evaluator.stack_counts()
        protocol = recipe.evaluation.protocol.describe()
        told = {"decision": saved.decision.describe()} if saved.decision.describe() else {}
        evaluations[name] = {**scores, "protocol": protocol, **told, "seconds": time.perf_counter() - started}
    if not trainer.is_world_process_zero():
        return

    write_image_counts(output_dir / "image_counts.npz", counted)
    write_results(
        RunResults(
            folder=output_dir,
            recipe=recipe,
            classes=data.classes,
            model=predictor.model,
            evaluations=evaluations,
            training=trainer.describe_training(),
            examples=predict_examples(predictor, data.splits[name], evaluator),
            log_history=trainer.state.log_history,
            image_range=saved.image_range,
        )
    )
    print(f"\n{name} split, {scores['images']} images\n{format_class_table(scores, data.classes.names)}\n")
    print("".join(f"{sentence}\n" for sentence in describe_failures(scores, data.classes.names)), end="")
    print(f"model, model card (README.md), metrics.json and report.html lie in {output_dir}")
    if recipe.training.get("push_to_hub"):
        repository = name_repository(recipe, output_dir)
        print(
            "pushed to",
            push_folder(output_dir, repository, bool(trainer.args.hub_private_repo), "Fine-tuned with segplus"),
        )


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Run a recipe; return the exit code."""
    try:
        train(load_recipe(find_recipe(options.recipe), rest))
    except TrainingDivergedError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CODE_DIVERGED
    except TrainingInterruptedError as error:  # it was told before the processes parted
        return EXIT_CODE_SIGNAL + error.number
    return 0


def main(arguments: Sequence[str]) -> int:
    """Do what `segplus train` does; return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else EXIT_CODE_INPUT
    return end_command(lambda: run(argparse.Namespace(recipe=arguments[0]), arguments[1:]))
