"""One measurement of training or evaluation in a process of its own, and the files that it needs."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUM_CLASSES = 150
WARM_UP_STEPS = 2
Result = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is measured: sizes in pixels, counts of images."""

    crop_px: int = 512
    batch: int = 4
    steps: int = 5
    repeats: int = 3
    timed_images: int = 50
    example_images: tuple[int, ...] = (25, 50, 100)
    segplus_images: tuple[int, ...] = (25, 50, 100, 200, 400)
    scenes: int = 24  # drawing takes longer than writing, so scenes are used again with other classes

    @property
    def train_images(self) -> int:
        """More than the steps need: the loader's workers must be busy until the last measured step."""
        return self.batch * (WARM_UP_STEPS + self.steps + 8)


QUICK = Plan(128, 2, 2, 1, 8, (4, 8), (4, 8, 12), 3)


def write_files(folder: Path, plan: Plan) -> None:
    """Write training photographs 4:3 as wide as they are cropped, square evaluation images, and the model."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, set_seed

    set_seed(0)
    SegformerForSemanticSegmentation(SegformerConfig(num_labels=NUM_CLASSES)).save_pretrained(folder / "model")
    for split in ("train", "validation"):
        for name in ("images", "masks"):
            (folder / split / name).mkdir(parents=True)
    names = json.dumps({str(i): f"class {i}" for i in range(NUM_CLASSES)})
    (folder / "id2label.json").write_text(names, encoding="utf-8")
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.starmap(_write_scene, [(folder, plan, scene) for scene in range(plan.scenes)])


def _write_scene(folder: Path, plan: Plan, scene: int) -> None:
    import numpy as np
    from PIL import Image

    from segplus.data.synthetic.scenes import SyntheticScenes

    height, width = plan.crop_px, plan.crop_px * 4 // 3
    image, ids = SyntheticScenes(plan.scenes, (height, width)).draw(scene)
    cells = (np.arange(height)[:, None] * 4 // height) * 4 + np.arange(width) * 4 // width
    for split, count, right in (("train", plan.train_images, width), ("validation", max(plan.segplus_images), height)):
        for index in range(scene, count, plan.scenes):
            # Nine classes of the scene times sixteen cells, from another start in each image: all 150, and 0 for void.
            mask = np.where(ids == 255, 0, 1 + (ids + 9 * cells + 7 * index) % NUM_CLASSES).astype(np.uint8)
            for name, pixels, suffix in (("images", image, "jpg"), ("masks", mask, "png")):
                path = folder / split / name / f"{index:04d}.{suffix}"
                Image.fromarray(np.ascontiguousarray(pixels[:, :right])).save(path, quality=95)


def measure_training(way: str, folder: Path, plan: Plan) -> Result:
    """Return images per second after the first steps."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Notes when each step ended."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    trainer, clock = build_trainer(way, folder, plan, plan.timed_images), Clock()
    trainer.add_callback(clock)
    trainer.train()
    return {
        "images_per_second": plan.batch * plan.steps / (clock.ends[-1] - clock.ends[WARM_UP_STEPS - 1]),
        "dtype": name_dtype(trainer),
        "peak_mib": read_peak_mib(),
    }


def measure_evaluation(way: str, folder: Path, plan: Plan, images: int) -> Result:
    """Return the seconds of one evaluation, those outside the network, and the scores."""
    trainer = build_trainer(way, folder, plan, images)
    memory = _watch_memory(trainer, plan)
    network: list[float] = []  # begin and end of every forward pass, without the loss that the example's model computes
    trainer.model.segformer.register_forward_pre_hook(lambda *_: network.append(-time.perf_counter()))
    trainer.model.decode_head.register_forward_hook(lambda *_: network.append(time.perf_counter()))
    start = time.perf_counter()
    scores = trainer.evaluate()
    seconds = time.perf_counter() - start
    kept = {key: scores[f"eval_{key}"] for key in ("mean_iou", "mean_accuracy", "overall_accuracy")}
    return {
        "seconds": seconds,
        "scoring_seconds": seconds - sum(network),
        "peak_mib": read_peak_mib(),
        "growth_mib": read_peak_mib() - memory[0],
        "dtype": name_dtype(trainer),
        "scores": kept,
    }


def _watch_memory(trainer: Any, plan: Plan) -> list[float]:
    """Return a list that will hold the peaks so far, from the batch on that ends the smallest set of images."""
    from transformers import TrainerCallback

    peaks: list[float] = []

    class Watch(TrainerCallback):
        """Notes the peak after a batch."""

        batches = 0

        def on_prediction_step(self, *_: Any, **__: Any) -> None:
            self.batches += 1
            if self.batches * plan.batch >= plan.segplus_images[0]:
                peaks.append(read_peak_mib())

    trainer.add_callback(Watch())
    return peaks


def name_dtype(trainer: Any) -> str:
    """Return the type in which the trainer runs the network."""
    return "bfloat16" if trainer.args.bf16 else "float32"


def build_trainer(way: str, folder: Path, plan: Plan, images: int) -> Any:
    """Return the trainer of one way over the first `images` evaluation images."""
    training = {
        "output_dir": str(folder / "run"),
        "per_device_train_batch_size": plan.batch,
        "per_device_eval_batch_size": plan.batch,
        "max_steps": WARM_UP_STEPS + plan.steps,
        "learning_rate": 6e-5,
        "dataloader_num_workers": 2,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "logging_steps": 10,
        "report_to": "none",
        "seed": 0,
    }
    if way.startswith("example"):
        from example_way import build_example_trainer

        training |= {"use_cpu": True, "dataloader_pin_memory": False, "disable_tqdm": True}
        return build_example_trainer(folder, images, plan.crop_px, NUM_CLASSES, **training)
    if way.endswith("float32"):
        training["bf16"] = False
    return _build_segplus_trainer(folder, plan, images, training)


def _build_segplus_trainer(folder: Path, plan: Plan, images: int, training: dict[str, Any]) -> Any:
    """Do what run_segmentation.py does before the first step."""
    import yaml
    from transformers import set_seed

    from segplus.data import check_split, load_segmentation_dataset
    from segplus.models import load_image_processor, load_model
    from segplus.recipe import load_recipe
    from segplus.training import build_trainer, build_training_arguments, prepare_process

    recipe_file = folder / "recipe.yaml"
    text = yaml.safe_dump(
        {
            "data": {
                "dataset": str(folder),
                "layout": "folders",
                "classes": str(folder / "id2label.json"),
                "reduce_labels": True,
                "max_images": {"validation": images},
            },
            "model": {"checkpoint": str(folder / "model"), "image_processor": {"do_resize": False}},
            "transforms": {
                "preset": "none",
                "crop_size_px": [plan.crop_px, plan.crop_px],
                "steps": {"HorizontalFlip": {"p": 0.5}},
            },
            "training": training,
        }
    )
    recipe_file.write_text(text, encoding="utf-8")
    recipe = load_recipe(recipe_file)
    prepare_process()
    arguments = build_training_arguments(recipe)
    data = load_segmentation_dataset(recipe.data)
    for split in data.splits.values():
        check_split(split, progress=False)
    set_seed(arguments.seed)
    loaded = load_model(recipe.model, data.classes)
    image_processor = load_image_processor(recipe.model, loaded.model.config)
    return build_trainer(recipe, arguments, data, loaded, image_processor)


def read_peak_mib() -> float:
    """Return the largest resident memory of this process so far, without what its parent had."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def answer_order(order: dict[str, Any]) -> Result:
    """Do one measurement in this process."""
    plan, folder = Plan(**order["plan"]), Path(order["folder"])
    if order["task"] == "training":
        return measure_training(order["way"], folder, plan)
    return measure_evaluation(order["way"], folder, plan, order["images"])


if __name__ == "__main__":
    print("\n" + json.dumps(answer_order(json.loads(sys.argv[1]))))
