"""Class colours: how far apart eyes see them."""

from __future__ import annotations

import numpy as np
import pytest

from segplus.classes import ClassMap
from segplus.colors import choose_colors, describe_sight


def measure_least_distances(count: int) -> np.ndarray:
    """Return the Oklab distance of the two nearest colours, to normal, protan-, deuter- and tritanopic eyes."""
    seen = describe_sight(choose_colors(count))
    distances = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1)
    distances[:, np.arange(count), np.arange(count)] = np.inf
    return distances.min(axis=(1, 2))


# Okabe and Ito's own seven come as near as 0.076; 0.02 is what is just noticed.
@pytest.mark.parametrize(("count", "least"), [(2, 0.2), (7, 0.075), (11, 0.075), (21, 0.075), (60, 0.04), (150, 0.024)])
def test_every_eye_tells_colors_apart(count: int, least: float) -> None:
    assert measure_least_distances(count).min() >= least


def test_every_count_begins_alike_and_no_color_repeats() -> None:
    many = choose_colors(300)
    assert len(set(many)) == 300
    for count in (1, 7, 8, 30):
        assert choose_colors(count) == many[:count]
    assert ClassMap.build([f"class {index}" for index in range(12)]).colors == many[:12]
    assert choose_colors(0) == ()


def test_sight_by_hand() -> None:
    """White and greys look alike to every eye; red and green are far nearer to a deuteranopic one."""
    white = describe_sight([(255, 255, 255)])
    np.testing.assert_allclose(white[:, 0], [[1, 0, 0]] * 4, atol=2e-4)
    red, green = describe_sight([(200, 60, 40), (110, 120, 30)]).transpose(1, 0, 2)
    normal, _, deuteranopic, _ = np.linalg.norm(red - green, axis=-1)
    assert deuteranopic < 0.4 * normal
