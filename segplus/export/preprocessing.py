"""What an image processor does to an image, as the few numbers that a program without transformers can repeat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from transformers import BaseImageProcessor, PreTrainedConfig

from segplus.errors import InputError
from segplus.export.runner import find_size, make_pixel_values
from segplus.images import DEEP_COLORS, read_image_range
from segplus.models.mask_transformers.families import find_family, is_mask_transformer
from segplus.transforms.geometry import find_resample
from segplus.transforms.serving import ServedPixels

# Sizes at which the numbers are tried: wider than high, higher than wide, smaller than any network.
_TRIED_PX = ((90, 141), (137, 64), (33, 33))
_EXAMPLE_PX = (256, 320)  # that a network of any size is traced at, where the image processor names none
_MOST_DIFFERENCE = 1e-4  # of a pixel value, whose unit is about a standard deviation


def set_size(image_processor: BaseImageProcessor, size_px: tuple[int, int] | None) -> BaseImageProcessor:
    """Return an image processor that serves every image at one size, whole; without a size the one that was given.

    Args:
        image_processor: The processor that is saved with a model.
        size_px: (height, width).
    """
    if size_px is None:
        return image_processor
    settings = image_processor.to_dict()
    off = {key: False for key in ("do_center_crop", "do_pad", "keep_aspect_ratio") if key in settings}
    size = {"height": size_px[0], "width": size_px[1]}
    changes = {**off, **({"ensure_multiple_of": 1} if "ensure_multiple_of" in settings else {})}
    return type(image_processor).from_dict({**settings, **changes, "do_resize": True, "size": size})


def describe_preprocessing(image_processor: BaseImageProcessor, channels: int) -> dict[str, Any]:
    """Return what the image processor does, as `runner.make_pixel_values` repeats it.

    Args:
        image_processor: The processor that is saved with a model.
        channels: Number of channels that the model takes.
    Returns:
        channels; size ({height, width}, {shortest_edge} or None for the image's own); resample (Pillow's number);
        factor and offset, one a channel: pixel values are image * factor + offset; channel_order; image_range.
    Raises:
        InputError: If the processor does more than that; it is tried on drawn images of three sizes.
    """
    settings = image_processor.to_dict()
    factor = float(settings["rescale_factor"]) if settings.get("do_rescale") else 1.0
    mean, deviation = ([0.0] * channels, [1.0] * channels)
    if settings.get("do_normalize"):
        mean, deviation = (_list_channels(settings[key], channels) for key in ("image_mean", "image_std"))
    order = list(range(channels))
    stated = read_image_range(settings) or (replace(DEEP_COLORS, round=True) if channels == 3 else None)
    known = {
        "channels": channels,
        "size": _find_size_rule(settings),
        "resample": find_resample(settings),
        "factor": [factor / one for one in deviation],
        "offset": [-first / one for first, one in zip(mean, deviation, strict=True)],
        "channel_order": order[::-1] if settings.get("do_flip_channel_order") else order,
        "image_range": None if stated is None else asdict(stated),
    }
    _try_preprocessing(image_processor, known)
    return known


def _list_channels(value: float | Sequence[float], channels: int) -> list[float]:
    return [float(value)] * channels if isinstance(value, int | float) else [float(one) for one in value]


def _find_size_rule(settings: dict[str, Any]) -> dict[str, int] | None:
    if not settings.get("do_resize"):
        return None
    size = {key: int(value) for key, value in dict(settings.get("size") or {}).items() if value}
    if set(size) in ({"height", "width"}, {"shortest_edge"}):
        return size
    raise InputError(
        "export: the image processor resizes by a rule that the exported program does not know",
        found=f"size: {size}",
        allowed="{height, width}, {shortest_edge}, or no resize",
        fix="give one size: --size 512x512 (height x width)",
    )


def _try_preprocessing(image_processor: BaseImageProcessor, known: dict[str, Any]) -> None:
    """Serve drawn images both ways.

    Raises:
        InputError: If the pixel values differ.
    """
    rng = np.random.default_rng(0)
    served = ServedPixels(image_processor, known["channels"])
    for height, width in _TRIED_PX:
        image = rng.integers(0, 256, (height, width, known["channels"]), dtype=np.uint8)
        expected, found = served(image).numpy(), make_pixel_values(image, known)
        is_same = expected.shape == found.shape and bool(np.abs(expected - found).max() <= _MOST_DIFFERENCE)
        if not is_same:
            raise InputError(
                f"export: {type(image_processor).__name__} does more than to resize, scale and normalise",
                found=f"an image of {height} x {width} becomes {expected.shape[2]} x {expected.shape[3]} there, "
                f"{find_size(height, width, known)} by size, factor and offset",
                allowed="do_resize, do_rescale, do_normalize, do_flip_channel_order",
                fix="give one size, which turns do_center_crop and do_pad off: --size 512x512 (height x width)",
            )


def parse_size(size: str | None) -> tuple[tuple[int, int] | None, bool]:
    """Return (height, width), None where none is stated, and whether any size is asked for.

    Raises:
        InputError: If it is neither `dynamic` nor two numbers.
    """
    if size is None or size == "dynamic":
        return None, size == "dynamic"
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if match is None or not all(int(side) for side in match.groups()):
        raise InputError("export: --size", found=size, allowed="dynamic, or height x width such as 512x1024")
    return (int(match[1]), int(match[2])), False


def find_fixed_size(known: dict[str, Any]) -> tuple[int, int] | None:
    """Return the (height, width) to which the preprocessing resizes every image, or None."""
    size = known["size"]
    return (size["height"], size["width"]) if size and "height" in size else None


def find_example_size(known: dict[str, Any]) -> tuple[int, int]:
    """Return (height, width) that the preprocessing gives, or may give."""
    fixed = find_fixed_size(known)
    if fixed is not None:
        return fixed
    edge = (known["size"] or {}).get("shortest_edge")
    return (edge, edge * 4 // 3) if edge else _EXAMPLE_PX


def refuse_odd_sizes(multiple: int, known: dict[str, Any]) -> None:
    """Refuse a network of certain sizes alone behind a preprocessing that gives others.

    Raises:
        InputError: If so.
    """
    if multiple > 1 and find_fixed_size(known) is None:
        raise InputError(
            f"export: the network takes multiples of {multiple} pixels once it is exported, and images come otherwise",
            found=f"size of the image processor: {known['size']}",
            fix="give one size: --size 512x512 (height x width)",
        )


def refuse_uncut_sizes(config: PreTrainedConfig, known: dict[str, Any], *, is_dynamic: bool) -> None:
    """Refuse sizes of images that the model cannot cut into the same squares every time: a graph holds their number.

    Args:
        config: Of any model; all but those that cut images take what the exporter can follow.
        known: From `describe_preprocessing`.
        is_dynamic: Whether any size is asked for.
    Raises:
        InputError: If so.
    """
    if not (is_mask_transformer(config) and find_family(config).splits_images):
        return
    side, fixed = config.image_size, find_fixed_size(known)
    if is_dynamic or fixed is None or min(fixed) != side:
        raise InputError(
            f"export: {config.model_type} cuts an image into squares of {side} pixels, and a graph holds their number",
            found="any size" if is_dynamic else f"size of the image processor: {known['size']}",
            allowed=f"one size whose shorter side is {side} (height x width)",
            fix=f"--size {side}x{side} (one square), or --size {side}x{2 * side} (two, side by side)",
        )
