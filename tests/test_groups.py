"""Groups that names show, and near-duplicates that are none."""

from __future__ import annotations

import numpy as np
import pytest

from segplus.data.splits import find_groups
from segplus.inspection.duplicates import AGREEMENT, measure_agreement
from segplus.inspection.groups import propose_grouping
from segplus.inspection.measurements import hash_differences


@pytest.mark.parametrize(
    ("names", "group_of_first", "groups"),
    [
        ([f"patient_{p:02d}_s{s}" for p in range(6) for s in range(4)], "patient_00", 6),
        ([f"{p:02d}{eye}" for p in range(1, 8) for eye in "LR"], "01", 7),
        ([f"Tile {t}/image_part_{k:03d}" for t in range(1, 5) for k in range(3)], "Tile 1", 4),
        (
            [f"0001TP_{n:06d}" for n in range(9)]
            + [f"0016E5_{n}" for n in range(9)]
            + [f"Seq05VD_{n}" for n in range(9)],
            "0001TP",
            3,
        ),
        ([f"frame_{n:04d}" for n in range(60)], "frame_000", 6),
    ],
)
def test_names_that_show_groups(names: list[str], group_of_first: str, groups: int) -> None:
    grouping = propose_grouping(names)
    assert grouping is not None
    found = find_groups(names, grouping.pattern)
    assert (found[0], len(set(found)), grouping.groups) == (group_of_first, groups, groups)


@pytest.mark.parametrize(
    "names",
    [
        [f"{n:04d}" for n in range(60)],
        [f"image_{n}" for n in range(60)],
        [f"{kind} ({n})" for kind in ("benign", "malignant") for n in range(30)],  # a group a class is no group
        [f"case_{n:03d}" for n in range(40)],
        ["a"],
    ],
)
def test_names_that_show_none(names: list[str]) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, len(names), dtype=np.uint64)
    assert propose_grouping(names, hashes) is None


def test_numbers_are_frames_where_neighbours_look_alike() -> None:
    steps = np.random.default_rng(0).integers(0, 64, 60)
    hashes = np.bitwise_xor.accumulate(np.uint64(1) << steps.astype(np.uint64))  # one bit from frame to frame
    grouping = propose_grouping([f"{n:04d}" for n in range(60)], hashes)
    assert grouping is not None
    assert grouping.groups == 6
    assert "10 consecutive frames" in grouping.what


def draw_fundus(seed: int) -> np.ndarray:
    """Return a round image with a vignette on black, and lines of its own."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:192, :192].astype(np.float32)
    away = np.hypot(rows - 96, columns - 96)
    image = 120 - 0.4 * away + 70 * np.exp(-((rows - 96) ** 2 + (columns - 50) ** 2) / 300)
    for angle, offset in zip(rng.uniform(0, 3.14, 12), rng.uniform(-60, 60, 12), strict=True):
        distance = abs((rows - 96) * np.sin(angle) + (columns - 96) * np.cos(angle) - offset)
        image += 40 * (distance < 2)
    return np.where(away < 88, image + rng.normal(0, 4, image.shape), 0).clip(0, 255).astype(np.float32)


def test_a_surround_in_common_makes_no_duplicates() -> None:
    images = [draw_fundus(seed) for seed in range(12)]
    agreements = [measure_agreement(first, second) for n, first in enumerate(images) for second in images[n + 1 :]]
    assert max(agreements) < AGREEMENT - 0.1
    correlations = np.corrcoef([image.ravel() for image in images])
    assert np.median(correlations[np.triu_indices(12, 1)]) > 0.8  # though they look alike as a whole
    bits = [(hash_differences(images[0]) ^ hash_differences(image)).bit_count() for image in images[1:]]
    assert min(bits) < 16


def test_a_copy_and_a_neighbouring_frame_agree() -> None:
    image = draw_fundus(0)
    noisy = image + np.random.default_rng(0).normal(0, 5, image.shape).astype(np.float32)
    assert measure_agreement(image, noisy) > 0.9
    assert measure_agreement(image, np.roll(image, 2, axis=1)) > AGREEMENT
    assert measure_agreement(image, image[::2, ::2]) > 0.9
    assert measure_agreement(np.zeros((9, 9), dtype=np.float32), np.zeros((9, 9), dtype=np.float32)) == 0.0
