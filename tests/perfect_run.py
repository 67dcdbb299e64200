"""Evaluate the perfect model through the trainer and through the saved folder; test_invariants runs it, also launched.

Arguments: folder of the data, folder of the results, kind of the masks, number of classes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import perfect
from transformers import SegformerImageProcessor, TrainingArguments

from segplus.data import load_segmentation_dataset
from segplus.inference import evaluate_split
from segplus.inference.checkpoint import find_checkpoint
from segplus.losses import build_criterion
from segplus.recipe import EvaluationRecipe
from segplus.recipe.evaluation_section import ProtocolRecipe
from segplus.training import SegmentationTrainer
from segplus.training.sets import EvaluationSet
from segplus.transforms import EvaluationTransform

METRICS = ["boundary_iou", "trimap_iou", "surface_dice", "hausdorff_95"]


def main(data_folder: str, output: str, kind: str, count: str) -> None:
    """Write every score of both ways to scores.json."""
    perfect.register()
    names = [f"class {index}" for index in range(int(count))]
    meaning = {"reduced": {"reduce_labels": True}, "void": {"void": [int(count)]}, "ids": {}}[kind]
    data = load_segmentation_dataset({"dataset": data_folder, "classes": names, "validation_share": 0.5, **meaning})
    split = data.splits["validation"]
    processor = SegformerImageProcessor(do_resize=False, do_normalize=False)
    config = perfect.PerfectConfig(id2label=data.classes.id2label, label2id=data.classes.label2id)
    model = perfect.PerfectModel(config)
    trainer = SegmentationTrainer(
        model,
        losses=build_criterion({"cross_entropy": 1.0}, len(names)),
        classes=data.classes,
        args=TrainingArguments(
            output_dir=output,
            use_cpu=True,
            report_to="none",
            per_device_eval_batch_size=1,
            disable_tqdm=True,
        ),
        eval_dataset=EvaluationSet(split, EvaluationTransform(processor)),
        processing_class=processor,
    )
    trained = trainer.evaluate()
    trainer.save_model()
    trainer.accelerator.wait_for_everyone()
    served = {}
    for name in ("fixed", "original", "sliding"):
        protocol = ProtocolRecipe(name=name, window_px=[32, 32], stride_px=1, blending="uniform", overlap=0.25)
        predictor = find_checkpoint(output).load(protocol)
        evaluator = evaluate_split(predictor, split, data.classes, EvaluationRecipe(metrics=METRICS), progress=False)
        served[name] = evaluator.compute(resamples=50)
    if trainer.is_world_process_zero():
        scores = {"trainer": trained, "served": served, "images": len(split), "processes": trainer.args.world_size}
        text = json.dumps(scores, default=lambda value: np.asarray(value).tolist())
        (Path(output) / "scores.json").write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
