"""What the 95 % bootstrap intervals cover: the score of simulated models, whose true score is known.

    python benchmarks/intervals.py

Samples of 200 images hold three common classes and one that occurs in 3 to 50 of them on average. Areas are
log-normal, the share that is found of each is drawn from a beta distribution, and false positives come beside the class
and elsewhere. The true score is that of 400,000 images. Every sample's interval either holds it or does not.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from machine import describe_machine
from scipy.stats import norm, t

from segplus.metrics import compute_intervals
from segplus.metrics.bootstrap import draw_resamples
from segplus.metrics.confusion import score_counts

IMAGES, RESAMPLES = 200, 300
HOLDERS = (3, 5, 10, 20, 50)
RECALLS = {"weak": 0.5, "good": 0.85}
Counts = npt.NDArray[np.float64]


def draw_counts(rng: np.random.Generator, images: int, shares: Counts, recalls: Counts) -> Counts:
    """Return hits, pixels of the truth and of the prediction per image and class, shape (images, 3, C).

    Args:
        rng: The source.
        images: Number of images.
        shares: Probability that an image holds a class, shape (C,).
        recalls: Mean share of a class's pixels that is found, shape (C,).
    """
    size = images, len(shares)
    here = rng.random(size) < shares
    truth = 1000 * rng.lognormal(0, 1, size) * here
    hits = truth * rng.beta(4 * recalls, 4 * (1 - recalls), size)
    beside = truth * rng.gamma(1, 1, size) * (1 - recalls) / 2
    elsewhere = ~here * (rng.random(size) < 0.05) * 200 * rng.lognormal(0, 1, size) * np.minimum(1, 4 * shares)
    return np.stack([hits, truth, hits + beside + elsewhere], 1)


def draw_other_rules(counts: Counts, seed: int, holders: int) -> dict[str, tuple[Counts, Counts]]:
    """Return rule -> intervals of the rare class's IoU and of mIoU, for rules that were not taken."""
    flat = counts.reshape(len(counts), -1)
    sums = np.concatenate([weights @ flat for weights in draw_resamples(len(counts), RESAMPLES, seed)])
    sums = sums.reshape(-1, *counts.shape[1:])
    rare = score_counts(sums)["per_category_iou"]
    absent = (sums[:, 1] == 0) & (counts[:, 1].sum(0) > 0)
    kept = np.where(absent, score_counts(counts.sum(0))["per_category_iou"], rare)
    tail = norm.cdf(-math.sqrt(holders / (holders - 1)) * t.ppf(0.975, holders - 1)) if holders > 1 else 0.0

    def cut(values: Counts, low: float) -> Counts:
        present = values[~np.isnan(values)]
        return np.quantile(present, (low, 1 - low)) if present.size else np.full(2, np.nan)

    return {
        "kept, number of images": (cut(kept[:, -1], tail), cut(kept.mean(1), tail)),
        "dropped, no correction": (cut(rare[:, -1], 0.025), cut(np.nanmean(rare, 1), 0.025)),
    }


def measure_coverage(holders: int, recall: float, trials: int) -> dict[str, tuple[float, float, float]]:
    """Return rule -> coverage of the rare class's IoU, of mIoU, and the mean width of mIoU's interval."""
    rng = np.random.default_rng(holders)
    shares, recalls = np.array([0.9, 0.8, 0.6, holders / IMAGES]), np.array([0.9, 0.8, 0.85, recall])
    true = score_counts(draw_counts(np.random.default_rng(99), 400_000, shares, recalls).sum(0))
    targets = true["per_category_iou"][-1], true["mean_iou"]
    rows: dict[str, list[list[float]]] = {}
    for trial in range(trials):
        counts = draw_counts(rng, IMAGES, shares, recalls)
        found = int((counts[:, 1, -1] > 0).sum())
        if not found:
            continue
        intervals = compute_intervals(counts, RESAMPLES, trial)
        both = np.array(intervals["per_category_iou"][-1]), np.array(intervals["mean_iou"])
        for rule, pair in ({"kept, effective number": both} | draw_other_rules(counts, trial, found)).items():
            covers = [float(low <= target <= high) for (low, high), target in zip(pair, targets, strict=True)]
            given = [math.nan if np.isnan(one[0]) else value for one, value in zip(pair, covers, strict=True)]
            rows.setdefault(rule, []).append([*given, pair[1][1] - pair[1][0]])
    return {rule: tuple(np.nanmean(values, 0).tolist()) for rule, values in rows.items()}  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    rows = []
    for holders in HOLDERS:
        for name, recall in RECALLS.items():
            for rule, (rare, mean, width) in measure_coverage(holders, recall, trials).items():
                shares = f"{100 * rare:.1f} % | {100 * mean:.1f} % | {100 * width:.1f}"
                rows.append(f"| {holders} | {name} | {rule} | {shares} |")
                print(rows[-1], flush=True)
    text = [
        "# What 95 % intervals cover",
        "",
        f"{trials:,} samples of {IMAGES} images a row, {RESAMPLES} resamples each: a share is known to "
        f"{100 * math.sqrt(0.05 * 0.95 / trials):.1f} points (one standard error).",
        "Percentiles are taken at the tails of Student's distribution, whose degrees of freedom are those of Kish's",
        "effective number of images or of the number of images, or left as they are.",
        "Intervals that the first rule, which is the one that is used, withholds (of a class in fewer than 5 images)",
        "are not counted; the others withhold none. The width is in points.",
        "",
        "| images with the rare class | it is found | a class that a resample lacks, tails | its IoU is covered "
        "| mIoU is covered | mIoU's width |",
        "|---:|---|---|---:|---:|---:|",
        *rows,
        "",
        *describe_machine("numpy", "scipy"),
        "",
    ]
    Path(__file__).with_suffix(".md").write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
