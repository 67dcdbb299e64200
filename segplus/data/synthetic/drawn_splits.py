"""The drawn street scenes as splits of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segplus.classes import ClassMap
from segplus.data.dataset import Labels, Pair, SegmentationSplit
from segplus.data.decoding.image_reader import ImageReader
from segplus.data.decoding.masks import MaskDecoder
from segplus.data.decoding.regions import OpenPair, open_arrays
from segplus.data.decoding.stored import Stored
from segplus.data.layouts.names import build_class_map
from segplus.data.layouts.source import Source
from segplus.data.synthetic.scenes import CLASS_COLORS, CLASS_NAMES, SyntheticScenes
from segplus.images import DecodedImage
from segplus.recipe.data_section import DataRecipe

_SEED_STRIDE = 1_000_003  # a prime, so that the splits of one seed and those of the next do not meet


class SyntheticSplit(SegmentationSplit):
    """A split whose pairs are drawn from a seed when they are asked for.

    Args:
        scenes: What draws.
        decoder: What the drawn ids mean.
        title: Name of the split.
        indices: The scenes that belong to the split.
        size_px: (height, width) of every scene.
        seed: Seed of the scenes.
    """

    def __init__(
        self,
        scenes: SyntheticScenes,
        decoder: MaskDecoder,
        title: str,
        indices: Sequence[int],
        size_px: tuple[int, int],
        seed: int,
    ) -> None:
        self.scenes = scenes
        self.decoder = decoder
        self.reader = ImageReader()
        self.title = title
        self.indices = list(indices)
        self.drawn_size_px = size_px
        self.seed = seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Pair:
        """Return the pair at a position."""
        rgb, ids = self.scenes.draw(self._scene(index))
        return {
            "image": Image.fromarray(rgb),
            "label": self.classes.decode(ids, self.name(index)),
            "name": self.name(index),
        }

    def open(self, index: int) -> OpenPair:
        """Return the pair, drawn."""
        rgb, ids = self.scenes.draw(self._scene(index))
        return open_arrays(rgb, self.classes.decode(ids, self.name(index)))

    def name(self, index: int) -> str:
        """Return split/number."""
        return f"{self.title}/{self._scene(index):06d}"

    @property
    def names(self) -> list[str]:
        """The names of all pairs, in order."""
        return [self.name(index) for index in range(len(self))]

    def image(self, index: int) -> DecodedImage:
        """Return the image only."""
        return self[index]["image"]

    def label(self, index: int) -> Labels:
        """Return the class ids only, shape (H, W)."""
        return self[index]["label"]

    def raw_label(self, index: int) -> npt.NDArray[Any]:
        """Return the drawn ids before the look-up table, shape (H, W)."""
        return self.scenes.draw(self._scene(index))[1]

    def size_px(self, index: int) -> tuple[int, int]:
        """Return (height, width), the same for every scene."""
        self._scene(index)
        return self.drawn_size_px

    def raw_pair(self, index: int) -> tuple[DecodedImage, npt.NDArray[Any]]:
        """Return the image and the drawn ids, drawn once."""
        rgb, ids = self.scenes.draw(self._scene(index))
        return Image.fromarray(rgb), ids

    def sources(self, index: int) -> tuple[str, str]:
        """Return the name, for both."""
        return self.name(index), self.name(index)

    def stored(self, index: int) -> tuple[Stored, Stored]:
        """Raise: nothing is stored."""
        raise TypeError(f"{self.name(index)} is drawn, not stored")

    def check_mask(self, index: int) -> None:
        """Do nothing: no file can be damaged."""

    def palette(self, index: int) -> bytes | None:
        """Return None: class ids are drawn."""
        return None

    def describe_encoding(self, index: int) -> tuple[str, str]:
        """Return that both are drawn."""
        return "drawn", "drawn"

    def select(self, indices: Sequence[int] | npt.NDArray[np.int64], title: str | None = None) -> SyntheticSplit:
        """Return the split that holds only these pairs, in this order."""
        chosen = [self.indices[int(index)] for index in indices]
        return SyntheticSplit(self.scenes, self.decoder, title or self.title, chosen, self.drawn_size_px, self.seed)

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Text that changes when the drawing or the choice of scenes changes."""
        classes = self.classes
        text = f"{self.seed}|{self.drawn_size_px}|{self.indices}|{sorted(classes.raw_to_class.items())}|{classes.names}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _scene(self, index: int) -> int:
        return self.indices[int(index)]


def draw_splits(section: DataRecipe) -> tuple[dict[str, SegmentationSplit], ClassMap]:
    """Return the drawn splits that a recipe describes, each from a seed of its own, and their classes."""
    names = dict(enumerate(CLASS_NAMES))
    colors = {name: (int(c[0]), int(c[1]), int(c[2])) for name, c in zip(CLASS_NAMES, CLASS_COLORS, strict=True)}
    source = Source({}, "drawn street scenes", names=names, colors=colors)
    classes = build_class_map(section, source, legend=False)
    size_px = (section.synthetic_size_px[0], section.synthetic_size_px[1])
    splits: dict[str, SegmentationSplit] = {}
    for split, count in section.synthetic_images.items():
        seed = section.seed * _SEED_STRIDE + ("train", "validation", "test").index(split)
        scenes = SyntheticScenes(count, size_px=size_px, seed=seed)
        splits[split] = SyntheticSplit(scenes, MaskDecoder(classes), split, range(count), size_px, seed)
    return splits, classes
