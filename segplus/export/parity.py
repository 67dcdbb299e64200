"""Whether an exported graph computes what the model does: scores, label maps, and mIoU of a split by both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segplus.data import SegmentationSplit
from segplus.export.runner import Network
from segplus.inference.predictor import Predictor
from segplus.inference.scoring import build_evaluator
from segplus.metrics import Evaluator
from segplus.progress import Progress
from segplus.recipe import EvaluationRecipe

DRAWN_IMAGES = 4  # where no split is given
SCORED_IMAGES = 3  # of a split, whose scores are compared
MOST_SCORE_DIFFERENCE = 1e-3  # of a float32 graph, relative to the largest score; above, it is another model


def draw_images(channels: int, count: int = DRAWN_IMAGES) -> list[npt.NDArray[np.uint8]]:
    """Return drawn images of several sizes with large and small shapes, always the same."""
    rng = np.random.default_rng(0)
    images = []
    for index in range(count):
        height, width = 120 + 31 * index, 170 + 17 * index
        coarse, fine = (rng.integers(0, 256, (side, side, channels)).astype(np.float64) for side in (5, 40))
        rows, columns = np.arange(height), np.arange(width)
        layers = [one[rows[:, None] * len(one) // height, columns * len(one) // width] for one in (coarse, fine)]
        images.append((0.7 * layers[0] + 0.3 * layers[1]).astype(np.uint8))
    return images


def compare_scores(predictor: Predictor, network: Network, image: npt.NDArray[Any]) -> float:
    """Return the largest difference of the scores of one image, relative to the largest score.

    Args:
        predictor: The model, float32.
        network: A graph that gives logits.
        image: Shape (H, W, channels).
    """
    expected = predictor.members[0].score(predictor.reader.read_served(image))[0].numpy()
    found = network.run(network.feed(image))[1][0]
    return float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-30))


class Comparison:
    """The model and its graphs beside one another on the same images.

    Args:
        predictor: The model.
        networks: Name -> graph.
        evaluators: Scores of "torch" and of each graph; None where no split is given.
    """

    def __init__(
        self, predictor: Predictor, networks: Mapping[str, Network], evaluators: Mapping[str, Evaluator] | None
    ) -> None:
        self.predictor, self.networks, self.evaluators = predictor, dict(networks), evaluators
        self.differing = dict.fromkeys(networks, 0)
        self.scores = dict.fromkeys(networks, 0.0)
        self.images = self.pixels = 0

    def add(self, image: Any, label: torch.Tensor | None, name: str) -> None:
        """Predict one image by all, and count."""
        array = np.asarray(image)
        expected = self.predictor.predict(image)
        predictions = {"torch": expected}
        for graph, network in self.networks.items():
            found = torch.from_numpy(network.label(array).astype(np.int32)).to(expected.dtype)
            predictions[graph] = found
            self.differing[graph] += int((found != expected).sum())
            if self.images < SCORED_IMAGES:
                self.scores[graph] = max(self.scores[graph], compare_scores(self.predictor, network, array))
        if self.evaluators is not None and label is not None:
            for graph, evaluator in self.evaluators.items():
                evaluator.update(predictions[graph], label, self.images, name)
        self.images += 1
        self.pixels += expected.numel()

    def summarize(self, recipe: EvaluationRecipe) -> dict[str, Any]:
        """Return graph -> score_difference (relative), differing_pixels (a share) and, of a split, mean_iou by both."""
        parity: dict[str, Any] = {
            graph: {
                "images": self.images,
                "score_difference": self.scores[graph],
                "differing_pixels": self.differing[graph] / max(self.pixels, 1),
            }
            for graph in self.networks
        }
        if self.evaluators is not None:
            computed = {name: one.compute(*recipe.list_bootstrap()) for name, one in self.evaluators.items()}
            for graph, row in parity.items():
                row["mean_iou"] = computed[graph]["mean_iou"]
                row["mean_iou_interval"] = computed[graph].get("intervals", {}).get("mean_iou")
                row["torch_mean_iou"] = computed["torch"]["mean_iou"]
                row["torch_mean_iou_interval"] = computed["torch"].get("intervals", {}).get("mean_iou")
        return parity


def compare_graphs(
    predictor: Predictor,
    networks: Mapping[str, Network],
    split: SegmentationSplit | None,
    recipe: EvaluationRecipe,
    *,
    images: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Return the parity of each graph with the model, on a split or on drawn images; see `Comparison.summarize`.

    Args:
        predictor: The model, float32, on the CPU, by the protocol `fixed`.
        networks: Name -> graph.
        split: Images and masks; None for drawn images.
        recipe: How the intervals are drawn.
        images: Only so many images of the split, evenly spread.
        progress: Show a progress bar.
    """
    if split is None:
        drawn = Comparison(predictor, networks, None)
        for image in draw_images(predictor.reader.served_pixels.channels or 3):
            drawn.add(image, None, "")
        return drawn.summarize(recipe)
    plain = EvaluationRecipe(bootstrap_resamples=recipe.bootstrap_resamples)
    evaluators = {name: build_evaluator(plain, split.classes) for name in ("torch", *networks)}
    comparison = Comparison(predictor, networks, evaluators)
    chosen = choose_evenly(len(split), images)
    bar = Progress(_read(split, chosen), title="parity", total=len(chosen), unit="images", show=progress)
    for pair in bar:
        label = pair["label"]
        tensor = torch.from_numpy(label if label.dtype == "uint8" else label.astype("int32"))
        comparison.add(pair["image"], tensor, pair["name"])
    return comparison.summarize(recipe)


def choose_evenly(total: int, count: int | None) -> list[int]:
    """Return `count` of the positions 0 to total - 1, evenly spread; all of them without a count."""
    if count is None or count >= total:
        return list(range(total))
    return [index * total // count for index in range(count)]


def _read(split: SegmentationSplit, chosen: list[int]) -> Iterator[Any]:
    for index in chosen:
        yield split[index]
