"""All generators, and the draw: as many faults as are asked for, spread evenly over the generators."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random

from . import (
    annotations,
    caches,
    checkpoints,
    command_lines,
    environments,
    images,
    legends,
    masks,
    outputs,
    recipe_meanings,
    recipe_texts,
    recipe_values,
    resuming,
    tables,
    weights,
)
from .fault import Case, Fault, Generator

CATEGORIES: dict[str, tuple[Generator, ...]] = {
    "recipes": (
        *recipe_values.GENERATORS,
        *recipe_meanings.GENERATORS,
        *recipe_texts.GENERATORS,
        *command_lines.GENERATORS,
    ),
    "tables": tables.GENERATORS,
    "annotations": annotations.GENERATORS,
    "legends": legends.GENERATORS,
    "images": images.GENERATORS,
    "masks": masks.GENERATORS,
    "checkpoints": (*checkpoints.GENERATORS, *weights.GENERATORS, *resuming.GENERATORS),
    "caches": caches.GENERATORS,
    "outputs": outputs.GENERATORS,
    "environment": environments.GENERATORS,
}
LARGEST_SHARE = 0.05


def draw_faults(seed: int, count: int) -> list[Fault]:
    """Return faults drawn in turn from every generator; none gives more than its share.

    Args:
        seed: Another seed draws others.
        count: How many; fewer where the generators have no more.
    """
    most = max(1, int(count * LARGEST_SHARE))
    drawn = [(category, one, _draw(category, one, seed, most)) for category, all_ in CATEGORIES.items() for one in all_]
    faults: list[Fault] = []
    number = 0
    while drawn and len(faults) < count:
        going_on = []
        for category, generator, cases in drawn:
            case = next(cases, None)
            if case is None:
                continue
            faults.append(Fault(category, generator.__name__, number, case))
            going_on.append((category, generator, cases))
        drawn, number = going_on, number + 1
    return faults[:count]


def _draw(category: str, generator: Generator, seed: int, most: int) -> Iterator[Case]:
    return islice(generator(Random(f"{seed}/{category}/{generator.__name__}")), most)
