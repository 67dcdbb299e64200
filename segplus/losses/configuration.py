"""What a recipe calls a loss: the terms by name, and the reading of their weights and parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from typing import Any

import torch
from torch import Tensor

from segplus.errors import InputError, suggest
from segplus.losses.boundary import Boundary, BoundaryCrossEntropy, SoftBoundaryF1
from segplus.losses.class_weights import FORMULAS
from segplus.losses.criterion import Criterion, Entry
from segplus.losses.lovasz import LovaszSoftmax
from segplus.losses.overlap import Dice, FocalTversky, Jaccard, Tversky
from segplus.losses.pixelwise import CrossEntropy, Focal, OhemCrossEntropy
from segplus.losses.rmi import RegionMutualInformation
from segplus.losses.schedules import Schedule, is_number, read_schedule
from segplus.losses.sigmoid import BinaryCrossEntropy, SigmoidFocal
from segplus.losses.terms import Term

LOSSES: dict[str, type[Term]] = {
    "binary_cross_entropy": BinaryCrossEntropy,
    "boundary": Boundary,
    "boundary_cross_entropy": BoundaryCrossEntropy,
    "cross_entropy": CrossEntropy,
    "dice": Dice,
    "focal": Focal,
    "focal_tversky": FocalTversky,
    "jaccard": Jaccard,
    "lovasz_softmax": LovaszSoftmax,
    "ohem_cross_entropy": OhemCrossEntropy,
    "rmi": RegionMutualInformation,
    "sigmoid_focal": SigmoidFocal,
    "soft_boundary_f1": SoftBoundaryF1,
    "tversky": Tversky,
}


def build_criterion(
    config: Mapping[str, Any],
    num_classes: int,
    ignore_index: int = 255,
    class_weights: Tensor | Sequence[float] | Mapping[str, float] | None = None,
    class_names: Sequence[str] | None = None,
    *,
    plain: bool = False,
) -> Criterion:
    """Return the loss that `config` names, as a module.

    Args:
        config: Term -> weight, or term -> {weight: ..., parameter: ...}.
        num_classes: C.
        ignore_index: The label that is ignored.
        class_weights: One weight a class, or weights by class name (the others weigh 1).
        class_names: Names of the classes, for weights by name.
        plain: Build the upsampled logits and use autograd, for comparison: the same numbers, slower and larger.
    Raises:
        InputError: If a term, a parameter, a class or a weight is not one that exists.
    """
    if not config:
        raise InputError("losses: no term is named", allowed=", ".join(sorted(LOSSES)))
    if num_classes < 1:
        raise InputError("num_classes", found=num_classes, allowed="1 or more")
    weights = read_class_weights("class_weights", class_weights, num_classes, class_names)
    if weights is not None and not bool(weights.any()):
        raise InputError("class_weights: every class weighs 0", allowed="one weight above 0")
    entries = {name: read_entry(name, options, num_classes, class_names) for name, options in config.items()}
    if not any(entry.build(share)[0] > 0 for entry in entries.values() for share in (0.0, 1.0)):
        raise InputError("losses: every term weighs 0", found=dict(config), allowed="one weight above 0")
    return Criterion(entries, num_classes, ignore_index, weights, plain)


def read_entry(name: str, options: Any, num_classes: int, class_names: Sequence[str] | None = None) -> Entry:
    """Return one entry of a recipe's `losses`.

    Args:
        name: Of the term.
        options: A weight, a schedule of the weight, or weight and parameters.
        num_classes: C.
        class_names: For parameters by class name.
    """
    if name not in LOSSES:
        raise InputError("losses: no such term", found=name, fix=suggest(str(name), LOSSES))
    term_type, key = LOSSES[name], f"losses.{name}"
    if num_classes == 1 and term_type.needs_softmax:
        fix = "use binary_cross_entropy or sigmoid_focal for one logit, or two classes"
        raise InputError(f"{key}: it needs at least two classes", found="num_classes=1", fix=fix)
    plain_weight = not isinstance(options, Mapping) or "schedule" in options
    given: dict[str, Any] = {"weight": options} if plain_weight else dict(options)
    weight = read_number(f"{key}.weight", given.pop("weight", 1.0))
    known = {field.name: field for field in fields(term_type)}
    values = {}
    for parameter, value in given.items():
        if parameter not in known:
            fix = suggest(str(parameter), [*known, "weight"])
            raise InputError(f"{key}: no such parameter", found=parameter, fix=fix)
        values[parameter] = read_parameter(f"{key}.{parameter}", known[parameter], value, num_classes, class_names)
    entry = Entry(weight, term_type, values)
    for percent in range(101):  # a whole number on its way may be one that is not allowed
        weight_now, term = entry.build(percent / 100)
        term.check(key)
        if not 0 <= weight_now < float("inf"):
            raise InputError(f"{key}.weight", found=weight_now, allowed="0 or more")
    return entry


def read_number(key: str, value: Any) -> float | Schedule:
    """Return a number or the schedule of one."""
    if isinstance(value, Mapping):
        return read_schedule(key, value)
    if not is_number(value):
        raise InputError(key, found=repr(value), allowed="a finite number, or a schedule")
    return float(value)


def read_parameter(key: str, field: Field[Any], value: Any, num_classes: int, class_names: Sequence[str] | None) -> Any:
    """Return the value of a parameter in the type of its field."""
    if field.metadata.get("by_class"):
        if is_number(value) or (isinstance(value, Mapping) and "schedule" in value):
            return read_number(key, value)
        return read_class_weights(key, value, num_classes, class_names)
    if isinstance(field.default, bool):
        if not isinstance(value, bool):
            raise InputError(key, found=repr(value), allowed="true or false")
        return value
    if isinstance(field.default, int):
        if isinstance(value, Mapping):
            return read_schedule(key, value, whole=True)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputError(key, found=repr(value), allowed="a whole number, or a schedule")
        return value
    return None if value is None and field.default is None else read_number(key, value)


def read_class_weights(
    key: str,
    given: Tensor | Sequence[float] | Mapping[str, float] | str | None,
    num_classes: int,
    names: Sequence[str] | None,
) -> Tensor | None:
    """Return one float32 weight a class, shape (C,), or None.

    Args:
        key: Name of the value, for messages.
        given: Weights in the order of the classes, or by name; a class that is not named weighs 1.
        num_classes: C.
        names: Names of the classes.
    Raises:
        InputError: If a class does not exist, the count is wrong, or a weight is negative or not finite.
    """
    if given is None:
        return None
    if isinstance(given, str):
        fix = f"count the masks and pass compute_class_weights(counts, {given!r})"
        raise InputError(f"{key}: weights are numbers", found=given, fix=fix if given in FORMULAS else None)
    entries = given.values() if isinstance(given, Mapping) else given if isinstance(given, (list, tuple)) else ()
    if not all(is_number(entry) for entry in entries) or not isinstance(given, (Mapping, list, tuple, Tensor)):
        raise InputError(f"{key}: weights are finite numbers", found=given, allowed=f"{num_classes} numbers")
    if isinstance(given, Mapping):
        if names is None:
            raise InputError(f"{key}: by name they need class_names", found=list(given), fix="pass class_names")
        for name in given:
            if name not in names:
                raise InputError(f"{key}: no such class", found=name, fix=suggest(str(name), names))
        given = [float(given.get(name, 1.0)) for name in names]
    weights = torch.as_tensor(given, dtype=torch.float32).detach().clone()
    if weights.shape != (num_classes,):
        count = tuple(weights.shape)
        raise InputError(f"{key}: a wrong count of weights", found=count, allowed=f"{num_classes} numbers")
    if not bool(torch.isfinite(weights).all() & (weights >= 0).all()):
        found = weights.tolist()
        raise InputError(f"{key}: a weight is negative or not finite", found=found, allowed="0 or more")
    return weights
