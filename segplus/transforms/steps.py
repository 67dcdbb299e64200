"""albumentations transforms from a recipe, made safe for class ids and checked before training starts."""

from __future__ import annotations

import inspect
import os
import random
import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from segplus.errors import InputError, suggest
from segplus.recipe.imports import import_object

NO_UPDATE_CHECK = "NO_ALBUMENTATIONS_UPDATE"
_GROUPS = ("OneOf", "SomeOf", "Sequential", "RandomOrder")
_PROBES = 6
_WHOLE_LEVELS = 1e-3  # of 255: what float32 leaves of whole grey levels
_MOST_FILLED = 4  # channels that OpenCV fills with a value each


@cache
def load_albumentations() -> Any:
    """Return the albumentations module, whose import is told not to ask the network for its newest version."""
    before = os.environ.get(NO_UPDATE_CHECK)
    os.environ.setdefault(NO_UPDATE_CHECK, "1")
    try:
        import albumentations
    finally:
        if before is None:
            del os.environ[NO_UPDATE_CHECK]
    return albumentations


def build_steps(
    steps: Mapping[str, Any],
    ignore_index: int,
    fill: tuple[int, ...],
    crop_size_px: tuple[int, int],
    deep: bool = False,
) -> Any | None:
    """Return one albumentations Compose of the steps, or None where there is none.

    Args:
        steps: Transform name -> its arguments. OneOf, SomeOf, Sequential and RandomOrder hold `transforms:`, a
            mapping of the same form.
        ignore_index: What masks are filled with.
        fill: What images are filled with, one value a channel.
        crop_size_px: (height, width) of the images; every step is tried on one.
        deep: The images are float32, from 0 to 1.
    Returns:
        Called with `image` and `mask`; gives a mapping of the same two.
    Raises:
        InputError: If a name or an argument is unknown, a value is refused, or a step changes the size, the type or the
            set of labels.
    """
    if not steps:
        return None
    filled = tuple(value / 255 for value in fill) if deep else fill
    built = [_build_step(name, arguments, ignore_index, filled) for name, arguments in steps.items()]
    for name, step in zip(steps, built, strict=True):
        probability, step.p = step.p, 1.0
        _try_step(
            name, _compose([step], ignore_index, filled), ignore_index, _draw_probe(crop_size_px, len(fill), deep)
        )
        step.p = probability
    return _compose(built, ignore_index, filled, strict=True)


def find_unfit_steps(
    steps: Mapping[str, Any],
    ignore_index: int,
    fill: tuple[int, ...],
    crop_size_px: tuple[int, int],
    deep: bool = False,
) -> list[str]:
    """Return the names of the steps that fail, or warn that they do nothing, on images of as many channels as `fill`.

    Hue, saturation and grey are of colour images only, some steps of 8 bits only. The arguments are `build_steps`'.
    """
    unfit = []
    for name, arguments in steps.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                build_steps({name: arguments}, ignore_index, fill, crop_size_px, deep)
            except InputError:
                unfit.append(name)
    return unfit


class ManyChannels:
    """Steps on images of more channels than OpenCV fills with a value each: what they fill is marked and filled after.

    Args:
        compose: albumentations' Compose with a second mask, `outside`, which is 0 and filled as the labels are.
        ignore_index: What masks are filled with.
        fill: What images are filled with, one value a channel.
    """

    def __init__(self, compose: Any, ignore_index: int, fill: tuple[float, ...]) -> None:
        self.compose, self.ignore_index, self.fill = compose, ignore_index, fill

    def __call__(self, image: npt.NDArray[Any], mask: npt.NDArray[Any]) -> dict[str, Any]:
        """Return the changed image and mask."""
        changed = self.compose(image=image, mask=mask, outside=np.zeros_like(mask))
        filled = changed["image"]
        if isinstance(filled, np.ndarray) and filled.shape == image.shape:
            filled[changed["outside"] == self.ignore_index] = self.fill
        return {"image": filled, "mask": changed["mask"]}

    def set_random_state(self, rng: np.random.Generator, state: random.Random) -> None:
        """Hand the random states over."""
        self.compose.set_random_state(rng, state)

    def set_random_seed(self, seed: int) -> None:
        """Hand the seed over."""
        self.compose.set_random_seed(seed)


def _compose(steps: list[Any], ignore_index: int, fill: tuple[float, ...], strict: bool = False) -> Any:
    albumentations = load_albumentations()
    if len(fill) <= _MOST_FILLED:
        return albumentations.Compose(steps, strict=strict)
    compose = albumentations.Compose(steps, strict=strict, additional_targets={"outside": "mask"})
    return ManyChannels(compose, ignore_index, fill)


def merge_steps(preset: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset's steps with the recipe's over them: replaced in place, removed by None, or appended.

    Raises:
        InputError: If a step is removed that the preset does not have.
    """
    merged = dict(preset)
    for name, arguments in changes.items():
        if arguments is None and name not in merged:
            allowed = ", ".join(preset) or "nothing: the preset has no steps"
            raise InputError(f"transforms.steps.{name}: nothing to remove", found="null", allowed=allowed)
        if arguments is None:
            del merged[name]
        else:
            merged[name] = arguments
    return merged


def _build_step(name: str, arguments: Any, ignore_index: int, fill: tuple[float, ...]) -> Any:
    where = f"transforms.steps.{name}"
    cls = _find_transform(name, where)
    if not isinstance(arguments, Mapping):
        raise InputError(
            f"{where}: no arguments", found=repr(arguments), allowed="argument: value lines, or null to remove it"
        )
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    try:
        if name in _GROUPS:
            members = values.pop("transforms", None)
            if not isinstance(members, Mapping) or not members:
                raise InputError(
                    f"{where}.transforms: no transforms", found=repr(members), allowed="name: arguments lines"
                )
            return cls([_build_step(n, a, ignore_index, fill) for n, a in members.items()], **values)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an unknown argument is dropped with a warning
            return cls(**_fill_in(values, cls, where, ignore_index, fill))
    except InputError:
        raise
    except (TypeError, ValueError, UserWarning) as error:
        allowed = ", ".join(p for p in inspect.signature(cls.__init__).parameters if p not in ("self", "kwargs"))
        raise InputError(f"{where}: {error}", found=dict(arguments), allowed=allowed) from None


def _find_transform(name: str, where: str) -> Any:
    """Return albumentations' class of that name, or somebody's own by its dotted path."""
    albumentations = load_albumentations()
    if "." in name:
        cls = import_object(name, "transforms.steps")
        if not (inspect.isclass(cls) and issubclass(cls, albumentations.BasicTransform)):
            raise InputError(
                f"{where}: no transform", found=repr(cls), allowed="a subclass of albumentations.BasicTransform"
            )
        return cls
    names = _list_names(albumentations)
    if name not in names:
        raise InputError(f"{where}: albumentations has no such transform", found=name, fix=suggest(name, names))
    return getattr(albumentations, name)


def _list_names(albumentations: Any) -> list[str]:
    base = albumentations.BasicTransform
    classes = [name for name, cls in vars(albumentations).items() if inspect.isclass(cls) and issubclass(cls, base)]
    abstract = {"BasicTransform", "DualTransform", "ImageOnlyTransform", "NoOp", "Transform3D"}
    return [*(name for name in classes if name not in abstract), *_GROUPS]


def _fill_in(
    values: dict[str, Any], cls: Any, where: str, ignore_index: int, fill: tuple[float, ...]
) -> dict[str, Any]:
    """Give masks the ignore index and nearest interpolation wherever the transform can be told so."""
    parameters = inspect.signature(cls.__init__).parameters
    if "fill_mask" in parameters:
        if values.get("fill_mask", ignore_index) != ignore_index:
            raise InputError(
                f"{where}.fill_mask", found=values["fill_mask"], allowed=f"{ignore_index}, the ignore index"
            )
        plain = fill if len(fill) <= _MOST_FILLED else 0  # ManyChannels fills the rest
        values = {"fill": plain, **values, "fill_mask": ignore_index}
    if values.get("mask_interpolation", 0) != 0:
        raise InputError(
            f"{where}.mask_interpolation", found=values["mask_interpolation"], allowed="0 (nearest): labels do not mix"
        )
    if "mask_drop_value" in parameters and values.get("mask_drop_value") not in (None, ignore_index):
        raise InputError(f"{where}.mask_drop_value", found=values["mask_drop_value"], allowed=f"{ignore_index} or null")
    return values


def _draw_probe(size: tuple[int, int], channels: int, deep: bool) -> npt.NDArray[Any]:
    rng = np.random.default_rng(0)
    shape = (*size, channels)
    return rng.random(shape, np.float32) if deep else rng.integers(0, 256, shape, dtype=np.uint8)


def _try_step(name: str, step: Any, ignore_index: int, image: npt.NDArray[Any]) -> None:
    """Run a step on a noise image, so that what it breaks is known before training."""
    where = f"transforms.steps.{name}"
    size = image.shape[:2]
    label = np.full(size, 7, np.uint8 if ignore_index < 256 else np.uint16)
    label[size[0] // 3 :, size[1] // 2 :] = 40
    for attempt in range(_PROBES):
        step.set_random_seed(attempt)
        changed = _run_probe(where, step, image, label)
        new = set(np.unique(changed["mask"]).tolist()) - {7, 40, ignore_index}
        if new:
            raise InputError(f"{where}: makes labels that were not there", found=sorted(new), fix="leave this step out")
        _check_image(where, changed["image"], image)
        if changed["mask"].shape != label.shape or changed["mask"].dtype != label.dtype:
            raise InputError(
                f"{where}: changes the mask's size or type", found=changed["mask"].shape, allowed=label.shape
            )


def _run_probe(where: str, step: Any, image: npt.NDArray[Any], label: npt.NDArray[Any]) -> dict[str, Any]:
    try:
        changed: dict[str, Any] = step(image=image, mask=label)
    except Exception as error:  # albumentations and OpenCV raise errors of many types here, all about this step
        raise InputError(
            f"{where}: fails on an image with its mask ({error})", fix="change its arguments or leave it out"
        ) from None
    return changed


def _check_image(where: str, image: Any, before: npt.NDArray[Any]) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != before.dtype:
        kind = "8-bit" if before.dtype == np.uint8 else "float32 from 0 to 1"
        raise InputError(f"{where}: the image is no longer {kind}", fix="leave it out: the image processor normalises")
    if image.dtype == np.float32 and not (image.min() >= -1e-3 and image.max() <= 1.001):
        found = f"{image.min():g}..{image.max():g}"
        raise InputError(
            f"{where}: does not keep values from 0 to 1", found=found, fix="leave it out: it is for 8 bits"
        )
    if image.dtype == np.float32 and np.abs(image * 255 - np.rint(image * 255)).max() < _WHOLE_LEVELS:
        raise InputError(f"{where}: rounds images to 8 bits", fix="leave it out: these images have more")
    shape = before.shape
    if image.shape != shape:
        raise InputError(
            f"{where}: changes the image's size",
            found=image.shape[:2],
            allowed=shape[:2],
            fix="use transforms.scale and transforms.crop_size_px; quarter turns need a square crop",
        )
