"""Recipes whose values of losses, masks, transforms, evaluation, splits and card are wrong."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from random import Random
from typing import Any

from .fault import Case, shorten
from .recipe_values import draw_values, train


def losses(rng: Random) -> Iterator[Case]:
    values: list[Any] = [
        {"cross_entropy": 0.0}, {"cross_entropy": 0, "dice": 0}, {"cross_entropy": math.nan}, {"dice": math.inf}, {},
        {"cross_entropy": -1.0}, {"cross_entropi": 1.0}, {"cross_entropy": "x"}, {"cross_entropy": [1]}, [], "dice",
        {"cross_entropy": {"label_smoothing": 7}}, {"cross_entropy": {"label_smoothin": 0.1}}, {7: 1.0}, None,
        {"focal": {"gamma": math.nan}}, {"focal": {"gamma": "x"}}, {"tversky": {"alpha": -1}}, {"dice": None},
        {"cross_entropy": {"weight": math.nan}}, {"dice": {"smooth": -1.0}}, {"dice": {"smooth": math.inf}},
    ]  # fmt: skip
    rng.shuffle(values)
    for value in values:
        yield Case(f"losses: {shorten(value)}", train({"losses": value}, "losses"))


def class_weights(rng: Random) -> Iterator[Case]:
    values: list[Any] = [
        "no_such_formula", {"nobody": 1.0}, {"ground": math.nan}, {"ground": math.inf}, {"ground": -1.0},
        {"ground": 0.0, "thing": 0.0}, {"ground": "x"}, [1.0], [], 7, {0: 1.0}, {"thing": [1]}, {"ground": None},
    ]  # fmt: skip
    rng.shuffle(values)
    for value in values:
        yield Case(f"class_weights: {shorten(value)}", train({"class_weights": value}, "class_weights", "weights"))


def meanings_of_masks(rng: Random) -> Iterator[Case]:
    table: dict[str, list[Any]] = {
        "data.void": [[[1, 2]], [None], [{"a": 1}], ["nobody"], "thing", [math.nan], [[300, 0, 0]], [0, 1], [True],
                      [10**30], [1.5], [dt.date(2024, 1, 1)], 7],
        "data.merge": [{"x": ["nobody"]}, {"x": "ground"}, {"x": [7]}, {"x": [["ground"]]}, [["a"]], {"x": None}, "x"],
        "data.classes": [[], {}, [[1]], {"0": {"a": 1}}, 7, ["a", "a"], {0.5: "a"}, {"a": "b"}, [None], {-(2**40): "a"},
                         {10**30: "a", 1: "b"}, [{}, {}], {dt.date(2024, 1, 1): "a"}, [True, False]],
        "data.encoding": ["id", 7, ["ids"], "one_hot", "colors"],
        "data.unknown": ["x", True, 7],
    }  # fmt: skip
    yield from draw_values(rng, table)


def colours(rng: Random) -> Iterator[Case]:
    values: list[Any] = [
        "#zzzzzz", "#12345", "#1234567", [1, 2], [1, 2, 3, 4], [256, 0, 0], [-1, 0, 0], ["a", 0, 0], [0.5, 0, 0], None,
        {"r": 1}, True, 7, [math.nan, 0, 0], "#" + rng.choice("ghijk") * 6, "# 1 2 3", "#+1+1+1", [[1], [2], [3]],
    ]  # fmt: skip
    rng.shuffle(values)
    for value in values:
        legend = {"ground": [0, 0, 0], "thing": value}
        yield Case(f"colour {shorten(value)}", train({"data.colors": legend}, "colors"))
    for legend in ({"nobody": [1, 2, 3]}, {7: [1, 2, 3]}, {}, {None: [0, 0, 0]}):
        changes = {"data.colors": legend, "data.encoding": "colors"}
        yield Case(f"colors: {shorten(legend)}", train(changes, "colors", "classes"))


def transforms(rng: Random) -> Iterator[Case]:
    table: dict[str, list[Any]] = {
        "transforms.crop_size_px": [[0, 32], [32], [-1, 8], "x", [10**7, 10**7], [1.5, 32], [[1], [2]], [math.nan, 32]],
        "transforms.scale": [[2, 1], [0, 1], [1], [math.nan, 1], [math.inf, math.inf], "x", [1e-9, 1e-9], [1,
        math.inf]],
        "transforms.preset": ["x", 7, None, ["light"]],
        "transforms.sampling": ["x", 7],
        "transforms.steps": [
            {"NoSuch": {}}, {"HorizontalFlip": {"q": 1}}, {"Rotate": 7}, ["Rotate"], {"Rotate": {"limit": "x"}},
            {7: {}}, {"RandomCrop": {"height": -1, "width": 2}}, {"HorizontalFlip": {"p": 7}}, {"__import__": {}},
            {"GaussianBlur": {"p": math.nan}}, {"Compose": {}},
        ],
    }  # fmt: skip
    yield from draw_values(rng, table)


def evaluation(rng: Random) -> Iterator[Case]:
    table: dict[str, list[Any]] = {
        "evaluation.metrics": [["x"], "boundary_iou", [7], [None], {"a": 1}],
        "evaluation.spacing": [[0, 1], [1], [math.nan, 1], [math.inf, 1], [-1, 1], "x"],
        "evaluation.trimap_widths_px": [[], [0], [-1], ["x"], 3, [1.5]],
        "evaluation.protocol.scales": [[], [0], [9], [math.nan], [-1], ["x"], [1e-9], [math.inf]],
        "evaluation.protocol.window_px": [[0, 0], [33, 32], [32], "x", [-32, 32]],
        "evaluation.protocol.name": ["x", 7, None],
        "evaluation.calibration_bins": [0, -1, "x"],
        "evaluation.protocol": [None, 7, [], "sliding"],
    }
    sliding = {"evaluation.protocol.name": "sliding"}
    for case in draw_values(rng, table):
        key = case.told.split(":")[0]
        if key != "evaluation.protocol.window_px":
            yield case
    for value in table["evaluation.protocol.window_px"]:
        changes = {**sliding, "evaluation.protocol.window_px": value}
        yield Case(f"sliding, window_px: {shorten(value)}", train(changes, "window_px"))


def splits(rng: Random) -> Iterator[Case]:
    table: dict[str, list[Any]] = {
        "data.validation_share": [1, 1.5, -0.1, "half"],
        "data.validation_split": ["nobody"],
        "data.train_split": ["nobody", 7],
        "data.max_images": [{"train": 0}, {"nobody": 3}, {"train": "x"}, {"train": -1}, 7, ["train"], {"train": 1.5}],
        "data.group_pattern": ["(", "no group", "(?P<a", 7, "(a)(?!", ""],
        "data.image_pattern": ["(", "x", "(nobody)", ""],
        "data.fold": [3, -1, "x"],
        "data.folds": [1, -2, "x", 100],
        "data.image_range": [[1], [2, 1], [math.nan, 1], "x", [0, math.inf], []],
        "data.channels": [0, -1, 5, "x", 1.5],
        "data.cache": [["a"], "recipe.yaml", "data/id2label.json/x"],
        "data.layout": ["x", 7, "coco", "labelme", "voc", "cityscapes", "ade20k", "saved", "metadata", "manifest"],
    }
    layouts = table.pop("data.layout")
    for value in layouts:
        yield Case(f"data.layout: {value}", train({"data.layout": value}, "layout", "data", "recipe.yaml"))
    for case in draw_values(rng, table):
        legitimate = case.told in ("data.channels: 5", "data.train_split: 7")
        yield Case(case.told, case.build, "either" if legitimate else "answered")


def callbacks_and_card(rng: Random) -> Iterator[Case]:
    table: dict[str, list[Any]] = {
        "callbacks": [["nobody.Nothing"], ["os.path"], ["os"], [7], "x", [""], ["os.system"], ["."], [None]],
        "card.license": ["Apache 2.0", ["mit"], ""],
        "card.tags": ["x", [7, [8]], [None], {"a": 1}],
        "card.language": ["en", [["en"]]],
        "early_stopping_patience": [0, -1, "x", 3],
        "loss_engine": ["x", 7],
        "model.attn_implementation": ["x", "owner/kernel", 7, "flash_attention_2"],
        "model.revision": [["x"], {"a": 1}],
        "model.trust_remote_code": ["maybe", 7],
    }
    yield from draw_values(rng, table)


def sections_of_another_shape(rng: Random) -> Iterator[Case]:
    sections = ("data", "model", "transforms", "training", "optimizer", "evaluation", "card", "model.config",
                "model.image_processor", "data.synthetic_images")  # fmt: skip
    yield from draw_values(rng, {name: ["x", [1], 7, True, [{"a": 1}], dt.date(2024, 1, 1)] for name in sections})


def tokens(rng: Random) -> Iterator[Case]:
    """Yield recipes that hold a Hub token: refused before it is written anywhere."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    for key in ("card.description", "training.run_name", "training.hub_model_id", "data.dataset", "training.output_dir",
                "training.hub_token", "model.checkpoint", "data.revision", "card.tags"):  # fmt: skip
        token = "hf_" + "".join(rng.choice(letters) for _ in range(34))
        value: Any = [token] if key == "card.tags" else f"out/{token}" if key == "training.output_dir" else token
        yield Case(f"a token in {key}", train({key: value}, key.rsplit(".", 1)[-1]))


GENERATORS = (
    losses, class_weights, meanings_of_masks, colours, transforms, evaluation,
    splits, callbacks_and_card, sections_of_another_shape, tokens,
)  # fmt: skip
