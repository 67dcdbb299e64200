"""The drawn street scenes as splits of a data set."""

from __future__ import annotations

import hashlib
from functools import cached_property, lru_cache
from typing import Any

import cv2
import datasets
import numpy as np

from segplus.classes import ClassMap
from segplus.data.dataset import SegmentationSplit
from segplus.data.decoding.image_reader import ImageReader
from segplus.data.decoding.masks import MaskDecoder
from segplus.data.layouts.names import build_class_map
from segplus.data.layouts.source import Source
from segplus.data.synthetic.scenes import CLASS_COLORS, CLASS_NAMES, SyntheticScenes
from segplus.recipe.data_section import DataRecipe

_SEED_STRIDE = 1_000_003  # a prime, so that the splits of one seed and those of the next do not meet


class SyntheticSplit(SegmentationSplit):
    """A split whose files are drawn from a seed when they are asked for; its table holds name, seed, scene and size."""

    @cached_property
    def fingerprint(self) -> str:
        """Text that changes with the choice of scenes, their size, or the meaning of a drawn id."""
        classes = self.classes
        text = f"{self.rows.to_dict()}|{sorted(classes.raw_to_class.items())}|{classes.names}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def size_px(self, index: int) -> tuple[int, int]:
        """Return (height, width), the same for every scene."""
        return tuple(map(super()._row(index).get, ("height", "width")))  # type: ignore[return-value]

    def _row(self, index: int) -> dict[str, Any]:
        row = super()._row(index)
        image, mask = _draw_files(row["seed"], row["scene"], (row["height"], row["width"]))
        files = ({"bytes": content, "path": None} for content in (image, mask))
        return dict(zip(("image", "mask"), files, strict=True), name=row["name"])


@lru_cache(maxsize=4)  # image, mask and size are asked for one after the other
def _draw_files(seed: int, scene: int, size_px: tuple[int, int]) -> tuple[bytes, bytes]:
    """Return the image and the mask of a scene as PNG files."""
    image, ids = SyntheticScenes(scene + 1, size_px, seed).draw(scene)
    quick = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    return cv2.imencode(".png", image[..., ::-1], quick)[1].tobytes(), cv2.imencode(".png", ids, quick)[1].tobytes()


def draw_splits(section: DataRecipe) -> tuple[dict[str, SegmentationSplit], ClassMap]:
    """Return the drawn splits that a recipe describes, each from a seed of its own, and their classes."""
    names = dict(enumerate(CLASS_NAMES))
    colors = {name: (int(c[0]), int(c[1]), int(c[2])) for name, c in zip(CLASS_NAMES, CLASS_COLORS, strict=True)}
    source = Source({}, "drawn street scenes", names=names, colors=colors)
    classes = build_class_map(section, source, legend=False)
    height, width = section.synthetic_size_px
    splits: dict[str, SegmentationSplit] = {}
    for split, count in section.synthetic_images.items():
        seed = section.seed * _SEED_STRIDE + ("train", "validation", "test").index(split)
        SyntheticScenes(count, (height, width), seed)  # refuses what cannot be drawn
        scenes = np.arange(count)
        columns = {"seed": [seed] * count, "scene": scenes, "height": [height] * count, "width": [width] * count}
        rows = datasets.Dataset.from_dict({"name": [f"{split}/{scene:06d}" for scene in scenes], **columns})
        splits[split] = SyntheticSplit(rows, MaskDecoder(classes), ImageReader(), split)
    return splits, classes
