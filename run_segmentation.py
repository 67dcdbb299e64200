"""One run, top to bottom: recipe, data, model, trainer, train, evaluate, report, push.

Usage:
    accelerate launch run_segmentation.py RECIPE.yaml [--key value ...]

The same command continues a run that died. Exit codes: 0 done, 2 a mistake in the recipe or the data, 3 training diverged.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from transformers import set_seed

from segplus.data import check_split, load_segmentation_dataset
from segplus.errors import EXIT_CODE_DIVERGED, EXIT_CODE_INPUT, InputError
from segplus.models import load_image_processor, load_model
from segplus.recipe import Recipe, load_recipe
from segplus.training import TrainingDivergedError, build_trainer, build_training_arguments, require_splits
from segplus.training.checkpoints import claim_output_dir, find_resumable_checkpoint


def run(recipe: Recipe) -> None:
    """Train, evaluate, report and push."""
    arguments = build_training_arguments(recipe)
    output_dir = Path(arguments.output_dir)

    with arguments.main_process_first(desc="data"):
        data = load_segmentation_dataset(recipe.data)
        require_splits(data)
        checks = {name: check_split(split) for name, split in data.splits.items()}

    set_seed(arguments.seed)
    loaded = load_model(recipe.model, data.classes, use_auxiliary_head=recipe.auxiliary_loss_weight > 0)
    image_processor = load_image_processor(recipe.model, loaded.model.config)
    trainer = build_trainer(recipe, arguments, data, loaded, image_processor, checks["train"])

    with arguments.main_process_first(desc="output folder"):
        claim_output_dir(recipe, output_dir)
        checkpoint = find_resumable_checkpoint(output_dir, arguments.world_size)
    if trainer.is_world_process_zero():
        print("\n".join([*data.found, loaded.describe(), f"resuming from {checkpoint}" if checkpoint else ""]).rstrip())
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.save_model()


def main(arguments: Sequence[str]) -> int:
    """Run a recipe; return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else EXIT_CODE_INPUT
    try:
        run(load_recipe(arguments[0], arguments[1:]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CODE_INPUT
    except TrainingDivergedError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CODE_DIVERGED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
