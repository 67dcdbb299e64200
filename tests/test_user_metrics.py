"""Metrics of one's own: a module of `evaluate` from a local path, functions by dotted path, in batches and merged."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import Squares, build_arguments, build_model

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.inference.scoring import build_evaluator
from segplus.metrics.user_metrics import UserMetrics, load_metrics
from segplus.recipe import EvaluationRecipe
from segplus.training import SegmentationTrainer

CLASSES = ClassMap.build(["road", "car", "tree"])
MODULE = """
import datasets
import evaluate


class {name}(evaluate.Metric):
    def _info(self):
        feature = {feature}
        features = datasets.Features({{"predictions": feature, "references": feature}})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references{parameters}):
        {body}
"""
SHARE_RIGHT = MODULE.format(
    name="ShareRight",
    feature='datasets.Value("int64")',
    parameters=", weight=1.0",
    body='return {"right": weight * sum(p == r for p, r in zip(predictions, references)) / len(predictions)}',
)
CLASS_SHARES = MODULE.format(
    name="ClassShares",
    feature="datasets.Image()",
    parameters=", num_labels",
    body="""import numpy
        pixels = [numpy.bincount(numpy.asarray(one).ravel(), minlength=num_labels) for one in predictions]
        return {"share": sum(pixels) / sum(pixels).sum(), "count": len(predictions)}""",
)
FUNCTIONS = """
def count_images(prediction, factor=1):
    return {"images_seen": factor * len(prediction.predictions)}


class LargestLabel:
    def __init__(self, start=0):
        self.largest = start

    def __call__(self, prediction, compute_result):
        self.largest = max([self.largest, *(int(one.max()) for one in prediction.predictions)])
        return {"largest": self.largest} if compute_result else {}


def fail(prediction):
    raise KeyError("spacing")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hold two modules of evaluate and a module of functions; keep evaluate's files here, and off the network."""
    for name, text in (("share_right", SHARE_RIGHT), ("class_shares", CLASS_SHARES), ("own_functions", FUNCTIONS)):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", tmp_path / "metrics")
    return tmp_path


def draw_maps(count: int) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(0)
    truths = [rng.choice([0, 1, 2, 255], (5, 4 + number)) for number in range(count)]
    return [(rng.integers(0, 3, truth.shape), truth) for truth in truths]


def test_modules_and_functions_measure_every_image_in_batches_and_over_processes(folder: Path) -> None:
    entries: list[Any] = [
        {str(folder / "share_right.py"): {"weight": 2.0}},
        str(folder / "class_shares.py"),
        {"own_functions.count_images": {"factor": 10}},
        {"own_functions.LargestLabel": {"start": -1}},
    ]
    maps = draw_maps(11)  # more than a batch
    whole, first, second = (UserMetrics(entries, CLASSES) for _ in range(3))
    for number, (guess, truth) in enumerate(maps):
        whole.update(guess, truth)
        (first if number % 2 else second).update(guess, truth)
    first.merge(pickle.loads(pickle.dumps(second)))
    found = whole.compute()["user_metrics"]
    assert first.compute()["user_metrics"] == pytest.approx(found)
    valid = sum(int((truth != 255).sum()) for _, truth in maps)
    right = sum(int((guess == truth)[truth != 255].sum()) for guess, truth in maps)
    assert found["right"] == pytest.approx(2.0 * right / valid)
    pixels = np.concatenate([guess.ravel() for guess, _ in maps])
    assert found["share/car"] == pytest.approx(float((pixels == 1).mean()))
    assert (found["count"], found["images_seen"], found["largest"]) == (11, 110, 2)


def test_an_evaluator_of_a_recipe_measures_them_beside_ours(folder: Path) -> None:
    import torch

    names = ["trimap_iou", str(folder / "share_right.py"), "own_functions.count_images"]
    evaluator = build_evaluator(EvaluationRecipe(metrics=names), CLASSES)
    for index, (guess, truth) in enumerate(draw_maps(3)):
        evaluator.update(torch.from_numpy(guess), torch.from_numpy(truth), index, str(index))
    scores = evaluator.compute()
    assert scores["user_metrics"]["right"] == pytest.approx(scores["overall_accuracy"])
    assert scores["user_metrics"]["images_seen"] == scores["images"] == 3
    assert "trimap_iou" in scores


def test_a_trainer_takes_a_path_and_forgets_an_interrupted_evaluation(folder: Path) -> None:
    class Broken(Squares):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if index == 3:
                raise OSError("gone")
            return super().__getitem__(index)

    metrics = [str(folder / "share_right.py"), {"own_functions.count_images": {"factor": 3}}]
    arguments = build_arguments(folder / "run", per_device_eval_batch_size=1)
    trainer = SegmentationTrainer(build_model(), arguments, eval_dataset=Squares(5), compute_metrics=metrics)
    with pytest.raises(OSError, match="gone"):
        trainer.evaluate(Broken())
    found = trainer.evaluate()
    assert found["eval_right"] == pytest.approx(found["eval_overall_accuracy"])
    assert found["eval_images_seen"] == 15


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("/", "a name, or one name with its arguments"),
        ({}, "a name, or one name with its arguments"),
        ("boundry_iou", "did you mean 'boundary_iou'"),
        (
            "no_such_metric",
            "evaluation.metrics: evaluate cannot load 'no_such_metric'.*without a network",
        ),
        ("own_functions.count_image", "did you mean 'count_images'"),
        ("own_functions.fail", "'own_functions.fail' fails on a perfect prediction.*spacing"),
        ({"share_right.py": {"wait": 1}}, "'share_right.py' fails.*wait"),
        ({"own_functions.LargestLabel": {"begin": 1}}, "cannot make 'own_functions.LargestLabel'.*begin"),
    ],
)
def test_what_cannot_measure_is_told_before_anything_is_computed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, entry: Any, message: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=rf"(?s){message}"):
        build_evaluator(EvaluationRecipe(metrics=[entry]), CLASSES)


def test_an_instance_is_taken_as_it_is() -> None:
    from segplus.metrics import MeanIoU

    (metric,) = load_metrics(MeanIoU(), CLASSES)
    label = np.array([[0, 1], [2, 255]], np.uint8)
    from transformers import EvalPrediction

    assert metric(EvalPrediction(predictions=[label], label_ids=[label]), compute_result=True)["mean_iou"] == 1.0
