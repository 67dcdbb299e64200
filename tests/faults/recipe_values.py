"""Recipes whose YAML is sound and whose values are not."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from random import Random
from typing import Any

from .fault import Case, Command, Expected, shorten
from .specimen import Place

NUMBERS = (
    "data.validation_share", "data.test_share", "data.split_seed", "data.folds", "data.threshold",
    "data.color_tolerance",
    "data.instance_divisor", "data.channels", "data.seed", "transforms.max_class_share", "transforms.rare_class_crop",
    "transforms.mixup", "transforms.mosaic", "transforms.repeat_threshold", "training.learning_rate",
    "training.weight_decay", "training.max_grad_norm", "training.warmup_steps", "training.num_train_epochs",
    "training.per_device_train_batch_size", "training.gradient_accumulation_steps", "training.seed",
    "training.adam_beta1", "training.adam_epsilon", "optimizer.head_learning_rate_multiplier", "auxiliary_loss_weight",
    "evaluation.boundary_share", "evaluation.surface_tolerance", "evaluation.calibration_bins",
    "evaluation.protocol.overlap", "evaluation.protocol.stride_px", "early_stopping_patience",
)  # fmt: skip
FRACTIONS = (
    "data.validation_share", "data.test_share", "transforms.max_class_share", "transforms.rare_class_crop",
    "transforms.mixup", "transforms.repeat_threshold", "training.learning_rate", "training.weight_decay",
    "training.max_grad_norm", "training.adam_beta1", "training.adam_beta2", "training.adam_epsilon",
    "training.warmup_steps", "optimizer.head_learning_rate_multiplier", "auxiliary_loss_weight",
    "evaluation.boundary_share", "evaluation.surface_tolerance", "evaluation.protocol.overlap",
)  # fmt: skip
WHOLE = (
    "training.seed", "training.data_seed", "data.split_seed", "training.per_device_train_batch_size",
    "training.gradient_accumulation_steps", "evaluation.bootstrap_resamples", "evaluation.bootstrap_seed",
    "evaluation.protocol.stride_px", "evaluation.protocol.windows_per_batch", "data.channels", "training.save_steps",
)  # fmt: skip


def train(changes: dict[str, Any], *names: str, arguments: tuple[str, ...] = (), results: tuple[str, ...] = ()):
    """Return a builder: the data set, the recipe with these values, and the command that trains it."""

    def build(place: Place) -> Command:
        place.put_data()
        place.put_recipe(changes)
        named = names or tuple(key.rsplit(".", 1)[-1] for key in changes)
        return Command("train", ("recipe.yaml", *arguments), named, results=results)

    return build


def draw_values(rng: Random, table: dict[str, list[Any]], expected: Expected = "answered") -> Iterator[Case]:
    """Yield every value of every key, shuffled."""
    pairs = [(key, value) for key, values in table.items() for value in values]
    rng.shuffle(pairs)
    for key, value in pairs:
        results = ("out/run/model.safetensors", "out/run/metrics.json") if expected == "runs" else ()
        section, _, leaf = key.rpartition(".")
        names = (leaf, section) if section.startswith(("model.", "evaluation.protocol")) else (leaf,)
        yield Case(f"{key}: {shorten(value)}", train({key: value}, *names, results=results), expected)


def wrong_types(rng: Random) -> Iterator[Case]:
    values = [dt.date(2024, 1, 1), "abc", [1, 2], {"a": 1}, "", "1e", b"\x01", True]
    while True:
        key, value = rng.choice(NUMBERS), rng.choice(values)
        yield Case(f"{key}: {shorten(value)}", train({key: value}))


def numbers_that_are_not_finite(rng: Random) -> Iterator[Case]:
    yield from draw_values(rng, {key: [math.nan, math.inf, -math.inf] for key in FRACTIONS})


def huge_integers(rng: Random) -> Iterator[Case]:
    yield from draw_values(rng, {key: [10**30, -(10**30), 10**400, 2**63] for key in WHOLE})


def seeds(rng: Random) -> Iterator[Case]:
    keys = ("training.seed", "training.data_seed", "data.split_seed", "evaluation.bootstrap_seed")
    yield from draw_values(rng, {key: [-1, -rng.randrange(2, 10**6), 2**64 + rng.randrange(9), "x"] for key in keys})


def betas_and_epsilon(rng: Random) -> Iterator[Case]:
    betas = [1.0, 1.5, -0.1, 2, round(-rng.random(), 3)]
    table = {"training.adam_beta1": betas, "training.adam_beta2": betas, "training.adam_epsilon": [-1e-8, -1.0]}
    yield from draw_values(rng, table)


def workers(rng: Random) -> Iterator[Case]:
    table: dict[str, list[Any]] = {
        "training.dataloader_num_workers": [-1, -rng.randrange(2, 99), 1.5, "many"],
        "training.dataloader_prefetch_factor": [0, -1, 2],  # without workers there is nothing to prefetch
    }
    yield from draw_values(rng, table)
    for value in (0, -2):
        changes = {"training.dataloader_num_workers": 1, "training.dataloader_prefetch_factor": value}
        yield Case(f"one worker, prefetch {value}", train(changes, "prefetch"))


def words_of_the_library(rng: Random) -> Iterator[Case]:
    words = ["x", "", "none at all", 7, ["a"], {"a": 1}]
    keys = ("log_level", "lr_scheduler_type", "optim", "save_strategy", "eval_strategy", "logging_strategy",
            "hub_strategy", "report_to", "metric_for_best_model")  # fmt: skip
    table = {f"training.{key}": words for key in keys}
    yield from draw_values(rng, table)


def missing_files(rng: Random) -> Iterator[Case]:
    table: dict[str, list[Any]] = {
        "training.accelerator_config": ["missing.json", "data"],
        "training.deepspeed": ["missing.json"],
        "training.fsdp_config": ["missing.json"],
        "data.classes": ["missing.json", "data/images/0.jpg", "data"],
        "data.colors": ["missing.csv", "data"],
        "model.checkpoint": ["./missing", "/missing/folder", "data", "recipe.yaml"],
        "data.dataset": ["./missing", "recipe.yaml", "data/images/0.jpg", "data/masks", "~nobody/x", "${NO_SUCH}/x"],
        "data.annotations": ["missing.json", "/etc/passwd", "../*.json"],
    }
    for key, values in table.items():
        for value in values:
            build = train({key: value}, key.rsplit(".", 1)[-1], value.rsplit("/", 1)[-1])
            yield Case(f"{key}: {value}", build)
    del rng


def model_values(rng: Random) -> Iterator[Case]:
    odd: dict[str, list[Any]] = {
        "hidden_sizes": [[8], [], "x", [0, 0, 0, 0], [-4, 4, 8, 8], None, [4.5, 4, 8, 8]],
        "depths": [[1], [0, 0], "x", [-1, 1, 1, 1], 3],
        "num_attention_heads": [[3, 3, 3, 3], [0, 1, 2, 2], [1], "x"],
        "decoder_hidden_size": [0, -8, "x", 1.5, None],
        "model_type": ["segfromer", "bert", 7, "", None],
        "hidden_act": ["x", 7],
        "num_encoder_blocks": [0, 9, "x"],
        "drop_path_rate": [2.0, -1.0, math.nan, "x"],
        "id2label": [["a"], {"x": "y"}],
        "no_such_key": [1],
    }
    table = {f"model.config.{key}": values for key, values in odd.items()}
    for case in draw_values(rng, table):
        own = case.told.split(":")[0].rsplit(".", 1)[-1]
        lenient = own == "id2label" or case.told.endswith("[3, 3, 3, 3]")
        yield Case(case.told, case.build, "either" if lenient else "answered")


def processor_values(rng: Random) -> Iterator[Case]:
    sizes: list[Any] = [{"height": 0, "width": 0}, {"height": -32, "width": 48}, {"height": 32}, 0, -1, [], "big",
                        {"height": 10**7, "width": 10**7}, {"shortest_edge": 0}, {"height": 1.5,
                        "width": 48}]  # fmt: skip
    means: list[Any] = [[0.5], [0.5, 0.5], [], "x", [math.nan] * 3, [math.inf, 0, 0], [None] * 3, {"a": 1}]
    table = {
        "size": sizes,
        "image_mean": means,
        "image_std": [*means, [0.0, 0.0, 0.0], [0.5, 0.5, 0.0]],
        "rescale_factor": [math.nan, math.inf, "x", None, [1]],
        "resample": [99, -1, "x", [1]],
        "do_resize": ["x", 7],
    }
    prefixed = {f"model.image_processor.{key}": values for key, values in table.items()}
    for case in draw_values(rng, prefixed):
        yield Case(case.told, case.build, "either" if "do_resize" in case.told else "answered")


def steps_and_epochs(rng: Random) -> Iterator[Case]:
    table: dict[str, list[Any]] = {
        "training.max_steps": [0, -7, 1.5, math.nan, "x"],
        "training.logging_steps": [-1, "x", math.nan],
        "training.warmup_steps": [-1, "x"],
        "training.save_total_limit": ["x", [1]],
        "training.eval_accumulation_steps": ["x", 1.5],
    }
    yield from draw_values(rng, table)
    for value in (0, -1, -0.5, math.nan, math.inf):
        changes = {"training.max_steps": ..., "training.num_train_epochs": value}
        yield Case(f"num_train_epochs: {value}, no max_steps", train(changes, "num_train_epochs"))
    for strategy, value in (("eval", 0), ("eval", -3), ("save", 0), ("save", -3)):
        changes = {f"training.{strategy}_strategy": "steps", f"training.{strategy}_steps": value}
        yield Case(f"{strategy}_steps: {value}", train(changes, f"{strategy}_steps"))


def runs_that_must_run(rng: Random) -> Iterator[Case]:
    """Small runs that are legitimate, the first one the first thing that people try."""
    results = ("out/run/model.safetensors", "out/run/metrics.json", "out/run/README.md")
    one = {"training.save_strategy": "epoch", "training.eval_strategy": "epoch", "training.max_steps": 1}
    drop = {"training.dataloader_drop_last": True, "training.per_device_eval_batch_size": 8, **one}
    dated = {"training.output_dir": dt.date(2024, 1, rng.randrange(1, 28)), "training.max_steps": 1}
    number = {"data.classes": {0: 7, 1: 8.5}, "training.max_steps": 1}
    for told, changes in (("max_steps 1, an evaluation an epoch", one), ("drop_last, 2 validation images", drop)):
        yield Case(told, train(changes, results=results), "runs")
    yield Case("class names that are numbers", train(number, results=results), "runs")
    # A run named by a date lands beside the recipe, where nothing else may be written: so it is named inside out/.
    dated["training.output_dir"] = f"out/{dated['training.output_dir']}"
    yield Case("a run named by a date", train(dated, results=("out/2024-*/model.safetensors",)), "runs")


GENERATORS = (
    runs_that_must_run, wrong_types, numbers_that_are_not_finite, huge_integers, seeds, betas_and_epsilon,
    workers, words_of_the_library, missing_files, model_values, processor_values, steps_and_epochs,
)  # fmt: skip
