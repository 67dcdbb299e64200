"""SegmentationTrainer with transformers' own arguments: any data set, any loss, any metric, nothing patched."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_model import NAMES, CrossEntropy, Squares, build_arguments, build_model
from torch.utils.data import IterableDataset
from transformers import EvalPrediction, TrainingArguments

from segplus.errors import InputError
from segplus.losses import build_criterion
from segplus.metrics import ConfusionMatrix, label_map
from segplus.metrics.label_map_store import LabelMaps
from segplus.training import SegmentationTrainer


class Stream(IterableDataset[dict[str, torch.Tensor]]):
    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return iter([Squares()[index] for index in range(8)])


def make_hub_like_dataset() -> datasets.Dataset:
    """Photographs of 32 px with PIL masks of twice the size, as `datasets` gives them."""
    squares = Squares()

    def transform(rows: dict[str, list[int]]) -> dict[str, list[Any]]:
        masks = [
            np.kron(squares.labels[row].numpy().astype(np.uint8), np.ones((2, 2), np.uint8)) for row in rows["row"]
        ]
        pixel_values = [squares.pixel_values[row].numpy().astype(np.float64) for row in rows["row"]]
        return {"pixel_values": pixel_values, "labels": [Image.fromarray(mask) for mask in masks]}

    return datasets.Dataset.from_dict({"row": list(range(8))}).with_transform(transform)


def score(model: torch.nn.Module, pixel_values: torch.Tensor, labels: torch.Tensor) -> float:
    matrix = ConfusionMatrix(len(NAMES))
    with torch.no_grad():
        matrix.update(label_map(model.eval()(pixel_values).logits, labels.shape[-2:]), labels)
    return matrix.compute()["mean_iou"]


def test_default_arguments_train_and_evaluate_and_nothing_of_the_callers_changes(tmp_path: Path) -> None:
    arguments = TrainingArguments(str(tmp_path / "out"), num_train_epochs=1)
    before, threads = copy.copy(vars(arguments)), torch.get_num_threads()
    model = build_model()
    trainer = SegmentationTrainer(model, arguments, train_dataset=Squares(), eval_dataset=Squares(5, seed=1))
    trainer.train()
    metrics = trainer.evaluate()
    squares = Squares(5, seed=1)
    assert metrics["eval_mean_iou"] == pytest.approx(score(model, squares.pixel_values, squares.labels), abs=1e-9)
    assert vars(arguments) == before
    assert torch.get_num_threads() == threads
    assert "forward" not in vars(model.decode_head)
    assert not model._forward_hooks
    assert model.config.id2label == dict(enumerate(NAMES))


@pytest.mark.parametrize(("data", "scale"), [(Squares(), 1), (Stream(), 1), (make_hub_like_dataset(), 2)])
def test_any_data_set_trains_and_is_scored_at_its_labels_size(tmp_path: Path, data: Any, scale: int) -> None:
    model, squares = build_model(), Squares()
    trainer = SegmentationTrainer(model, build_arguments(tmp_path, max_steps=2), train_dataset=data, eval_dataset=data)
    trainer.train()
    labels = squares.labels.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    assert trainer.evaluate()["eval_mean_iou"] == pytest.approx(score(model, squares.pixel_values, labels), abs=1e-9)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, labels, ignore_index=255)


def sum_items(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    full = F.interpolate(outputs.logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(full, labels, ignore_index=255, reduction="sum") / num_items_in_batch


@pytest.mark.parametrize("accumulation", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_every_way_to_name_a_loss_is_the_same_loss(tmp_path: Path, accumulation: int) -> None:
    """Every image has as many valid pixels, so that a mean over micro-batches is the mean over pixels."""
    ways = [
        {"losses": {"cross_entropy": 1.0}},
        {"losses": build_criterion({"cross_entropy": 1.0}, 4)},
        {"losses": cross_entropy},
        {"losses": CrossEntropy()},
        {"losses": "tiny_model.CrossEntropy"},
        {"compute_loss_func": sum_items},
    ]
    values = {"max_steps": 1, "logging_steps": 1, "learning_rate": 0.0, "gradient_accumulation_steps": accumulation}
    arguments = build_arguments(tmp_path, per_device_train_batch_size=8 // accumulation, **values)
    found = []
    for way in ways:
        model = build_model(classifier_dropout_prob=0.0, drop_path_rate=0.0)
        trainer = SegmentationTrainer(
            model, arguments, train_dataset=Squares(), eval_dataset=Squares(), freeze_batch_norm=True, **way
        )
        trainer.train()
        line = trainer.state.log_history[0]
        found.append((line["loss"], line["grad_norm"], trainer.evaluate()["eval_loss"]))
    for values in found[1:]:
        assert values == pytest.approx(found[0], rel=1e-4)


def count_right(prediction: EvalPrediction) -> dict[str, float]:
    pairs = list(zip(prediction.predictions, prediction.label_ids, strict=True))
    right = sum(int((guess == truth)[truth != 255].sum()) for guess, truth in pairs)
    return {"right": right / sum(int((truth != 255).sum()) for _, truth in pairs), "seen": len(pairs)}


class CountInBatches:
    def __init__(self) -> None:
        self.right = self.valid = 0

    def __call__(self, prediction: EvalPrediction, compute_result: bool) -> dict[str, float]:
        for guess, truth in zip(prediction.predictions, prediction.label_ids, strict=True):
            self.right += int((guess == truth)[truth != 255].sum())
            self.valid += int((truth != 255).sum())
        return {"right": self.right / self.valid} if compute_result else {}


@pytest.mark.parametrize("metric", [count_right, CountInBatches()])
def test_a_users_metric_stands_beside_ours_and_sees_label_maps(tmp_path: Path, metric: Any) -> None:
    arguments = build_arguments(tmp_path, per_device_eval_batch_size=2)
    trainer = SegmentationTrainer(build_model(), arguments, eval_dataset=Squares(5), compute_metrics=metric)
    metrics = trainer.evaluate()
    assert metrics["eval_right"] == pytest.approx(metrics["eval_overall_accuracy"])
    assert "eval_mean_iou" in metrics


def test_preprocessed_logits_take_the_place_of_label_maps_for_a_users_metric(tmp_path: Path) -> None:
    trainer = SegmentationTrainer(
        build_model(),
        build_arguments(tmp_path, per_device_eval_batch_size=2),
        eval_dataset=Squares(5),
        preprocess_logits_for_metrics=lambda logits, _: logits.amax((1, 2, 3)),
        compute_metrics=lambda prediction: {"largest": float(np.asarray(prediction.predictions).max())},
    )
    with torch.no_grad():
        largest = build_model().eval()(Squares(5).pixel_values).logits.max()
    assert trainer.evaluate()["eval_largest"] == pytest.approx(float(largest), rel=1e-5)


def test_predict_gives_label_maps_with_and_without_labels(tmp_path: Path) -> None:
    model, squares = build_model(), Squares(5)
    trainer = SegmentationTrainer(model, build_arguments(tmp_path, per_device_eval_batch_size=2))
    output = trainer.predict(squares)
    with torch.no_grad():
        expected = label_map(model.eval()(squares.pixel_values).logits, (32, 32))
    assert np.array_equal(np.asarray(output.predictions), expected.numpy())
    assert np.array_equal(np.asarray(output.label_ids), squares.labels.numpy())
    assert output.metrics["test_mean_iou"] == pytest.approx(score(model, squares.pixel_values, squares.labels))
    alone = trainer.predict([{"pixel_values": one} for one in squares.pixel_values])
    assert np.array_equal(np.asarray(alone.predictions), expected.numpy())
    assert alone.label_ids is None
    assert "test_mean_iou" not in alone.metrics


def test_label_maps_beyond_a_size_lie_on_disk_and_read_the_same() -> None:
    arrays = [np.full((size, 3), size, np.uint8) for size in (4, 5, 6)]
    maps = LabelMaps(most_bytes=13)
    for array in arrays:
        maps.append(array)
    assert (maps.bytes_in_memory, maps.bytes_on_disk) == (12, 33)
    assert [one.tolist() for one in maps] == [one.tolist() for one in arrays]
    assert maps[-1].shape == (6, 3)
    with pytest.raises(InputError, match="differ in size"):
        np.asarray(maps)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing"),
        ({"neftune_noise_alpha": 5.0}, "embeddings of words"),
        ({"train_sampling_strategy": "group_by_length"}, "images have no length"),
        ({"include_for_metrics": ["inputs"]}, "compute_metrics gets label maps"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SegmentationTrainer(build_model(), build_arguments(tmp_path, **values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": ["road", "car"]}, "2 names, 4 labels"),
        ({"losses": build_criterion({"cross_entropy": 1.0}, 7)}, "7 classes"),
        ({"losses": torch.nn.Linear(1, 1)}, "no optimizer would train"),
        ({"losses": {"dise": 1.0}}, "did you mean 'dice'"),
        ({"losses": cross_entropy, "compute_loss_func": sum_items}, "both are given"),
        ({"compute_metrics": "no/such/metric"}, "evaluate cannot load"),
    ],
)
def test_a_wrong_loss_class_or_metric_is_told_when_the_trainer_is_built(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        SegmentationTrainer(build_model(), build_arguments(tmp_path), **values)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"labels": torch.zeros(4, 4)}, "no 'pixel_values'"),
        ({"pixel_values": torch.zeros(1, 3, 32, 32), "labels": torch.zeros(32, 32)}, r"allowed: \(C, H, W\)"),
        ({"pixel_values": torch.zeros(3, 32, 32), "labels": torch.zeros(32, 32)}, "class ids"),
        ({"pixel_values": torch.zeros(3, 32, 32)}, "no 'labels'"),
        ({"pixel_values": np.zeros((3, 32, 32), np.uint8), "labels": np.zeros((32, 32), int)}, "not normalised"),
    ],
)
def test_a_wrong_sample_is_told_by_its_key(tmp_path: Path, sample: dict[str, Any], message: str) -> None:
    trainer = SegmentationTrainer(build_model(), build_arguments(tmp_path), train_dataset=[sample])
    with pytest.raises(InputError, match=message):
        trainer.train()
