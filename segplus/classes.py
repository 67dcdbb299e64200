"""ClassMap: what every raw mask value means, answered once, in one look-up table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from segplus.colors import Color, choose_colors
from segplus.errors import InputError, suggest

IGNORE_INDEX = 255
WIDE_IGNORE_INDEX = 65535
_BACKGROUND_NAMES = ("background", "_background_")


@dataclass(frozen=True)
class ClassMap:
    """The classes of a data set and the raw mask values that stand for them.

    Args:
        names: Class names; position is the class id.
        raw_to_class: Raw mask value -> class id, or the ignore index. A value that is not a key is outside the classes.
        colors: One RGB colour a class, for drawing.
        ignore_index: The label that is ignored; 255, or 65535 above 255 classes.
        unknown: "error" refuses values outside the classes; "ignore" turns them into the ignore index.
        legend: Raw values are packed colours, red * 65536 + green * 256 + blue.
    """

    names: tuple[str, ...]
    raw_to_class: Mapping[int, int]
    colors: tuple[Color, ...] = field(default=())
    ignore_index: int = IGNORE_INDEX
    unknown: str = "error"
    legend: bool = False

    def __post_init__(self) -> None:
        """Fill in colours where none are given."""
        if not self.colors:
            object.__setattr__(self, "colors", choose_colors(len(self.names)))

    @classmethod
    def build(
        cls,
        names: Mapping[int, str] | Sequence[str],
        *,
        reduce_labels: bool = False,
        void: Iterable[int | str] = (),
        merge: Mapping[str, Sequence[str]] | None = None,
        colors: Mapping[str, Sequence[int]] | None = None,
        unknown: str = "error",
        legend: bool = False,
        source: str = "data.classes",
    ) -> ClassMap:
        """Return the map that a data section describes.

        Args:
            names: Raw mask value -> name, or a list whose position is the raw value. With `reduce_labels` the values
                are those after the reduction, as in the id2label files of the Hub.
            reduce_labels: Raw 0 is ignored and every other value is lowered by one (ADE20K).
            void: Raw values, or names, that are ignored.
            merge: New name -> the names that become it. The merged class stands where its first member stood.
            colors: Class name -> RGB.
            unknown: "error" or "ignore", for raw values that no class has.
            legend: The values are packed colours, and class ids follow the order of `names`, not that of the values.
            source: What gave the names, for the message.

        Raises:
            InputError: If a name is unknown or repeated, or no class is left.
        """
        listed = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
        ordered = listed.items() if legend else sorted(listed.items())
        raw_names = {int(raw) + int(reduce_labels): str(name) for raw, name in ordered}
        _refuse_huge_values(raw_names, source)
        void_raw = _find_void_values(raw_names, void)
        target = _find_merge_targets(raw_names, merge or {})
        kept = {raw: target.get(name, name) for raw, name in raw_names.items() if raw not in void_raw}
        if not kept:
            raise InputError(
                "data.classes: no class is left", found=listed, fix="name at least one class that is not void"
            )
        order = tuple(dict.fromkeys(kept.values()))
        _refuse_accidental_merges(kept, merge or {}, source)
        if len(order) > WIDE_IGNORE_INDEX:
            raise InputError(f"{source}: too many classes", found=len(order), allowed=f"at most {WIDE_IGNORE_INDEX:,}")
        ignore_index = IGNORE_INDEX if len(order) <= IGNORE_INDEX else WIDE_IGNORE_INDEX
        class_ids = {name: index for index, name in enumerate(order)}
        raw_to_class = {raw: class_ids[name] for raw, name in kept.items()}
        ignored = void_raw | ({0} if reduce_labels else set()) | (set() if legend else {ignore_index} - set(kept))
        raw_to_class |= dict.fromkeys(ignored, ignore_index)
        return cls(order, raw_to_class, _choose_named_colors(order, colors or {}), ignore_index, unknown, legend)

    @property
    def num_classes(self) -> int:
        """The number of classes, C."""
        return len(self.names)

    @property
    def id2label(self) -> dict[int, str]:
        """Class id -> name, as a model's config holds it."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """Name -> class id, as a model's config holds it."""
        return {name: index for index, name in enumerate(self.names)}

    @property
    def label_dtype(self) -> type[np.unsignedinteger[Any]]:
        """The narrowest unsigned integer that holds every class id and the ignore index."""
        return np.uint8 if self.ignore_index == IGNORE_INDEX else np.uint16

    @cached_property
    def _lowest(self) -> int:
        return min(0, min(self.raw_to_class))

    @cached_property
    def _outside(self) -> int:
        # A value that no class has marks raw values that are no key; up to 254 classes it fits beside 255 into 8 bits.
        return 254 if self.num_classes <= 254 and self.ignore_index == IGNORE_INDEX else 65534

    @cached_property
    def _table(self) -> npt.NDArray[np.unsignedinteger[Any]]:
        width = max(256, max(self.raw_to_class) - self._lowest + 1)  # 256 at least: 8-bit masks need no range check
        narrow = self._outside == 254
        table = np.full(width, self._outside, dtype=np.uint8 if narrow else np.uint16)
        for raw, class_id in self.raw_to_class.items():
            table[raw - self._lowest] = class_id
        return table

    @cached_property
    def _keeps_ids(self) -> bool:
        """Whether 0, 1, ... C - 1 and the ignore index stand for themselves, and nothing else stands for anything."""
        plain = dict(zip(range(self.num_classes), range(self.num_classes), strict=True))
        return self.ignore_index == IGNORE_INDEX and self.raw_to_class == plain | {IGNORE_INDEX: IGNORE_INDEX}

    def decode(self, raw: npt.NDArray[Any], source: str) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Return the class ids of a raw mask.

        Args:
            raw: Raw values as they lie in the file, any integer type, shape (H, W).
            source: File name or key, for the message.

        Returns:
            Class ids and the ignore index, `label_dtype`, shape (H, W).

        Raises:
            InputError: If a value is outside the classes and `unknown` is "error".
        """
        own = self._keeps_ids and raw.dtype == np.uint8
        if own and not ((raw >= self.num_classes) & (raw != self.ignore_index)).any():
            return raw.astype(np.uint8)  # a copy: a fifth of the time of looking each pixel up
        labels = self._look_up(raw)
        outside = labels == self._outside
        if outside.any():
            if self.unknown == "error":
                raise self._describe_outside(raw[outside], source)
            labels[outside] = self.ignore_index
        return labels.astype(self.label_dtype, copy=False)

    def count_outside(self, raw: npt.NDArray[Any]) -> dict[int, int]:
        """Return raw value -> pixels, of the values that no class has; packed colours where the masks are colours."""
        values = raw[self._look_up(raw) == self._outside]
        found, counts = np.unique(values, return_counts=True)
        return {int(value): int(count) for value, count in zip(found, counts, strict=True)}

    def _look_up(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.unsignedinteger[Any]]:
        table = self._table
        if raw.dtype == np.uint8 and self._lowest == 0:
            return table.take(raw)
        if raw.size == 0:
            return np.zeros(raw.shape, dtype=table.dtype)
        position = raw.astype(np.int64) - self._lowest
        inside = (position >= 0) & (position < len(table))
        if inside.all():
            return table.take(position)
        return np.where(inside, table.take(np.where(inside, position, 0)), self._outside).astype(table.dtype)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the tables behind: a worker process builds its own."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def _describe_outside(self, values: npt.NDArray[Any], source: str) -> InputError:
        found, counts = np.unique(values, return_counts=True)
        shown = [str(unpack_color(int(value)) if self.legend else value) for value in found[:5]]
        listed = ", ".join(f"{value} ({count} pixels)" for value, count in zip(shown, counts, strict=False))
        noun = "colours" if self.legend else "values"
        more = f" and {len(found) - 5} more {noun}" if len(found) > 5 else ""
        if self.legend:
            return InputError(
                f"{source}: mask colours outside the legend",
                found=listed + more,
                fix="add them to data.colors or data.void, set data.color_tolerance, or set data.unknown: ignore",
            )
        ignored = sorted(raw for raw, class_id in self.raw_to_class.items() if class_id == self.ignore_index)
        named = sorted(set(self.raw_to_class) - set(ignored))
        return InputError(
            f"{source}: mask values outside the classes",
            found=listed + more,
            allowed=f"{_shorten(named)} for classes, {_shorten(ignored)} for ignored pixels",
            fix="add the value to data.classes or data.void, or set data.unknown: ignore",
        )


def pack_colors(rgb: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return red * 65536 + green * 256 + blue, int32, shape (...), of colours, shape (..., 3)."""
    wide = rgb.astype(np.int32)
    packed: npt.NDArray[np.int32] = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return packed


def unpack_color(value: int) -> Color:
    """Return the (red, green, blue) of a packed colour."""
    return value >> 16 & 255, value >> 8 & 255, value & 255


def _refuse_huge_values(raw_names: Mapping[int, str], source: str) -> None:
    if raw_names and not -(2**24) < min(raw_names) <= max(raw_names) < 2**24:
        raise InputError(
            f"{source}: a mask value beyond 24 bits", found=max(raw_names, key=abs), allowed="below 16777216"
        )


def _shorten(values: Sequence[int]) -> str:
    if len(values) > 12 and values[-1] - values[0] == len(values) - 1:
        return f"{values[0]}..{values[-1]}"
    return ", ".join(map(str, values))


def _find_void_values(raw_names: Mapping[int, str], void: Iterable[int | str]) -> set[int]:
    values: set[int] = set()
    for entry in void:
        if isinstance(entry, int):
            values.add(entry)
            continue
        matches = {raw for raw, name in raw_names.items() if name == entry}
        if not matches:
            raise InputError("data.void: no such class", found=entry, fix=suggest(entry, raw_names.values()))
        values |= matches
    return values


def _find_merge_targets(raw_names: Mapping[int, str], merge: Mapping[str, Sequence[str]]) -> dict[str, str]:
    target: dict[str, str] = {}
    known = set(raw_names.values())
    for new, members in merge.items():
        for member in members:
            if member not in known:
                raise InputError(f"data.merge.{new}: no such class", found=member, fix=suggest(member, known))
            if member in target:
                raise InputError(
                    f"data.merge.{new}: '{member}' is merged twice", found=target[member], fix="name it once"
                )
            target[member] = new
    return target


def find_backgrounds(names: Sequence[str]) -> list[int]:
    """Return the ids of the classes that are called background; none where there is one class alone."""
    found = [index for index, name in enumerate(names) if name.lower() in _BACKGROUND_NAMES]
    return found if len(names) > 1 else []


def _refuse_accidental_merges(kept: Mapping[int, str], merge: Mapping[str, Sequence[str]], source: str) -> None:
    twice = sorted(name for name, count in Counter(kept.values()).items() if count > 1 and name not in merge)
    if twice:
        raise InputError(
            f"{source}: a name stands for two values", found=", ".join(twice), fix="rename one, or use data.merge"
        )


def _choose_named_colors(order: Sequence[str], colors: Mapping[str, Sequence[int]]) -> tuple[Color, ...]:
    for name, color in colors.items():
        if name not in order:
            raise InputError("data.colors: no such class", found=name, fix=suggest(name, order))
        if len(color) != 3 or any(not 0 <= channel <= 255 for channel in color):
            raise InputError(f"data.colors.{name}: not a colour", found=color, allowed="three numbers from 0 to 255")
    chosen = choose_colors(len(order))
    return tuple(
        (int(colors[name][0]), int(colors[name][1]), int(colors[name][2])) if name in colors else chosen[index]
        for index, name in enumerate(order)
    )
