"""The image processor that is saved with the model: what evaluation and the pipeline both use."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image
from transformers import AutoImageProcessor, BaseImageProcessor, PreTrainedConfig
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from segplus.errors import InputError, suggest
from segplus.images import PRECISION_KEY, RANGE_KEY, ImageRange, describe_range, read_image_range
from segplus.models.channels import count_channels
from segplus.models.encoder_head_config import EncoderHeadConfig
from segplus.models.library_failures import explain_failures, quiet_transformers
from segplus.models.mask_transformers.families import find_family, is_mask_transformer
from segplus.models.model_configs import expand_checkpoint
from segplus.models.transfer import copy_normalization, load_encoder_processor
from segplus.recipe import ModelRecipe

# Cropping and padding change the geometry behind the pipeline's back: it stretches the logits over the whole image.
# Labels are decoded once, by the ClassMap, so the processor never reduces them.
_FIXED = {"do_center_crop": False, "do_pad": False, "do_reduce_labels": False}
_MOST_SIDE_PX = 1 << 16

MeasureChannels = Callable[[], tuple[Sequence[float], Sequence[float]]]


def load_image_processor(
    recipe: ModelRecipe,
    config: PreTrainedConfig,
    *,
    image_range: ImageRange | None = None,
    measure_channels: MeasureChannels | None = None,
) -> BaseImageProcessor:
    """Return the checkpoint's image processor, or the model type's own, with the recipe's values over it.

    Args:
        recipe: The model section; `image_processor` holds the values.
        config: The model's config, which names the processor where the checkpoint has none.
        image_range: The values that become 0 and 255 in images deeper than 8 bits; kept with the processor.
        measure_channels: Gives mean and standard deviation of each channel in 0..255; called where the model takes
            other than three channels and neither recipe nor checkpoint says what they are.

    Raises:
        InputError: If a key is unknown to the processor, or would serve another geometry than was evaluated.
    """
    for key in (RANGE_KEY, PRECISION_KEY):
        if key in recipe.image_processor:
            raise InputError(f"model.image_processor: unknown key '{key}'", fix="set data.image_range")
    with quiet_transformers():
        processor = _load_from_checkpoint(recipe) or _load_from_encoder(recipe, config) or _build_from_type(config)
        processor = _override(processor, recipe.image_processor, config)
        processor = _fit_channels(processor, recipe.image_processor, count_channels(config), measure_channels)
        settings = {key: value for key, value in processor.to_dict().items() if key not in (RANGE_KEY, PRECISION_KEY)}
        processor = type(processor).from_dict({**settings, **describe_range(image_range)})
    check_image_processor(processor, count_channels(config), "model.image_processor")
    return processor


def check_image_processor(processor: BaseImageProcessor, channels: int, key: str) -> None:
    """Refuse values that no image survives.

    Args:
        processor: The image processor of a checkpoint, or with a recipe's values.
        channels: Input channels of the model.
        key: What the message begins with.
    Raises:
        InputError: If a side is below 1, a filter is none of Pillow's, or a mean, deviation, factor or range is not
            finite, zero where it divides, or not one a channel.
    """
    settings = processor.to_dict()
    try:
        read_image_range(settings)
    except (ValueError, TypeError):
        allowed = "[low, high], or {low: ..., high: ..., clip: true}"
        raise InputError(f"{key}.{RANGE_KEY}", found=settings[RANGE_KEY], allowed=allowed) from None
    if settings.get("do_resize", True):
        sides = _list_sides(settings.get("size"))
        if not all(_is_number(side) and 1 <= side <= _MOST_SIDE_PX for side in sides):
            raise InputError(f"{key}.size", found=settings["size"], allowed=f"sides of 1 to {_MOST_SIDE_PX} pixels")
        _check_filter(settings.get("resample"), key)
    if settings.get("do_rescale", True):
        factor = settings.get("rescale_factor", 1.0)
        if not _is_number(factor) or factor == 0:
            raise InputError(f"{key}.rescale_factor", found=factor, allowed="a finite number other than 0")
    if settings.get("do_normalize", True):
        for name in ("image_mean", "image_std"):
            _check_normalization(settings.get(name), name, channels, key)


def _check_filter(given: Any, key: str) -> None:
    filters = {int(one): one.name.lower() for one in Image.Resampling}
    # None: the processor says so itself where it needs one.
    if given is not None and (not isinstance(given, int) or isinstance(given, bool) or given not in filters):
        allowed = ", ".join(f"{number} ({name})" for number, name in sorted(filters.items()))
        raise InputError(f"{key}.resample", found=given, allowed=allowed)


def _check_normalization(given: Any, name: str, channels: int, key: str) -> None:
    if given is None:  # the processor says so itself where it needs one
        return
    values = list(given) if isinstance(given, list | tuple) else [given] * channels
    is_right = len(values) == channels and all(_is_number(value) for value in values)
    if not is_right or (name == "image_std" and not all(value > 0 for value in values)):
        above = " above 0" if name == "image_std" else ""
        raise InputError(f"{key}.{name}", found=values, allowed=f"one finite number{above} a channel: {channels}")


def _list_sides(size: Any) -> list[Any]:
    """Return the stated sides of a size: a number, a list or named sides."""
    if isinstance(size, dict):
        return [side for side in size.values() if side is not None]
    return list(size) if isinstance(size, list | tuple) else [] if size is None else [size]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def find_image_range(processor: BaseImageProcessor) -> ImageRange | None:
    """Return the values that become 0 and 255 in images deeper than 8 bits, or None where the model was not told."""
    return read_image_range(processor.to_dict())


def _load_from_checkpoint(recipe: ModelRecipe) -> BaseImageProcessor | None:
    if recipe.checkpoint is None:
        return None
    checkpoint = expand_checkpoint(recipe.checkpoint)
    try:
        return AutoImageProcessor.from_pretrained(
            checkpoint, revision=recipe.revision or "main", trust_remote_code=recipe.trust_remote_code
        )
    except (OSError, ValueError):
        # A checkpoint without preprocessor_config.json; the model's own weights were found before this is asked.
        return None


def _load_from_encoder(recipe: ModelRecipe, config: PreTrainedConfig) -> BaseImageProcessor | None:
    """Return a processor that normalises as the encoder's checkpoint asks, where the recipe names one."""
    source = recipe.config.get("backbone") if isinstance(config, EncoderHeadConfig) else None
    if recipe.checkpoint is not None or source is None:
        return None
    given = load_encoder_processor(expand_checkpoint(str(source), "model.config.backbone"))
    return None if given is None else copy_normalization(_build_from_type(config), given)


def _build_from_type(config: PreTrainedConfig) -> BaseImageProcessor:
    with explain_failures("model.image_processor", config.model_type):
        found = IMAGE_PROCESSOR_MAPPING[type(config)]
    # Without torchvision the mapping's PIL entry is the one that works; AutoImageProcessor chooses so, too.
    classes = found.values() if isinstance(found, dict) else found
    for processor_class in classes:
        if processor_class is None:
            continue
        try:
            return processor_class()
        except ImportError:
            continue
    raise InputError(f"model.image_processor: none is known for {config.model_type}", fix="start from a checkpoint")


def _override(processor: BaseImageProcessor, values: dict[str, Any], config: PreTrainedConfig) -> BaseImageProcessor:
    settings, required = processor.to_dict(), dict(_FIXED)
    if is_mask_transformer(config) and find_family(config).splits_images:
        # The model takes one square size: the shorter side is resized to it, the longer one is cut into patches.
        required["do_split_image"] = True
        values = {"size": {"shortest_edge": config.image_size, "longest_edge": None}, **values}
    for key, value in values.items():
        if key not in settings and key not in type(processor).valid_kwargs.__annotations__:
            raise InputError(f"model.image_processor: unknown key '{key}'", fix=suggest(key, settings))
        if key in required and value != required[key]:
            raise InputError(
                f"model.image_processor.{key}",
                found=value,
                allowed=required[key],
                fix="resize instead: the pipeline stretches the prediction over the whole image",
            )
    fixed = {key: value for key, value in required.items() if key in settings}
    try:
        return type(processor).from_dict({**settings, **values, **fixed})
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise InputError(
            "model.image_processor: cannot be made of these values",
            found=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:400]}",
            fix="give them as the checkpoint's preprocessor_config.json does, such as size: {height: 512, width: 512}",
        ) from error


def _fit_channels(
    processor: BaseImageProcessor, wishes: dict[str, Any], channels: int, measure_channels: MeasureChannels | None
) -> BaseImageProcessor:
    """Give the processor a mean and a standard deviation a channel; those of three channels stay the checkpoint's."""
    settings = processor.to_dict()
    if channels != 3 and settings.get("do_flip_channel_order"):
        settings["do_flip_channel_order"] = False  # blue before red has a meaning in colour images only
    missing = [
        key
        for key in ("image_mean", "image_std")
        if settings.get("do_normalize") and _count_values(settings.get(key)) not in (None, channels)
    ]
    for key in missing:
        if key in wishes:
            raise InputError(
                f"model.image_processor.{key}", found=wishes[key], allowed=f"one number a channel: {channels}"
            )
    if missing and measure_channels is not None:
        factor = float(settings["rescale_factor"]) if settings.get("do_rescale") else 1.0
        means, deviations = measure_channels()
        # A channel of one value gets a deviation of one grey level: it becomes 0, not infinite.
        measured = {
            "image_mean": [mean * factor for mean in means],
            "image_std": [max(deviation, 1.0) * factor for deviation in deviations],
        }
        settings |= {key: measured[key] for key in missing}
    return type(processor).from_dict(settings)


def _count_values(value: Any) -> int | None:
    """Return the length of a list, or None of a number, which holds for every channel."""
    return len(value) if isinstance(value, list | tuple) else None
