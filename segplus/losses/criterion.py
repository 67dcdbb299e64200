"""The weighted sum of terms that a recipe names, on logits at the model's stride."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, cast

import torch
import torch.distributed
from torch import Tensor, nn

from segplus.errors import InputError, suggest
from segplus.losses.overlap import Dice, OverlapTerm
from segplus.losses.pixelwise import CrossEntropy, Focal, PixelTerm
from segplus.losses.plain import evaluate_plainly
from segplus.losses.softmax import SAFE_RANGE, OverlapPart, PixelPart, SoftmaxWalk, walk_softmax
from segplus.losses.terms import LabelBatch, Reduction, Term
from segplus.losses.upsample import choose_grid

LOSSES: dict[str, type[Term]] = {
    "cross_entropy": CrossEntropy,
    "dice": Dice,
    "focal": Focal,
}


class _Streamed(torch.autograd.Function):
    """A loss whose gradient was computed beside its value."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_output).to(ctx.dtype), None, None


class Criterion(nn.Module):
    """The weighted sum of named terms; see `build_criterion`.

    `parts` keeps the detached, unweighted value of every term of the last call by its name.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        terms: Mapping[str, tuple[float, Term]],
        num_classes: int,
        ignore_index: int,
        class_weights: Tensor | None,
        plain: bool,
    ) -> None:
        super().__init__()
        self.terms = dict(terms)
        self.num_classes, self.ignore_index, self.plain = num_classes, ignore_index, plain
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.parts: dict[str, Tensor] = {}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        normalizers: Mapping[str, Tensor] | None = None,
        accumulation_steps: int = 1,
    ) -> Tensor:
        """Return the scalar to differentiate.

        Args:
            logits: Raw scores at the model's stride, any float type, shape (N, C, h, w).
            labels: Class ids of any integer type, shape (N, H, W); ignore_index counts nowhere.
            normalizers: Denominators by term: `count_normalizers` summed over the micro-batches of an accumulated step
                and over processes. The value then is this call's share: shares add up, over micro-batches and
                processes, to the value of the whole batch. None where the call is a whole batch by itself.
            accumulation_steps: Micro-batches of the accumulated step, by which terms without a denominator are divided.
        Returns:
            Scalar, float32 (float64 for float64 logits); 0 when every pixel is ignored.
        Raises:
            InputError: If shapes do not fit, or a label is outside [0, C) and not ignore_index.
        """
        self._check_shapes(logits, labels)
        batch = LabelBatch(labels, self.num_classes, self.ignore_index, self.class_weights)
        reduction = self._choose_reduction(normalizers, accumulation_steps)
        coefficients = self._choose_denominators(batch, normalizers)
        with torch.autocast(logits.device.type, enabled=False):
            if self.plain:
                return self._evaluate_plainly(logits, batch, coefficients, reduction)
            return self._stream(logits, batch, coefficients, reduction)

    def count_normalizers(self, labels: Tensor) -> dict[str, Tensor]:
        """Return the denominators of one micro-batch by term; terms that have none are absent.

        Args:
            labels: As in `forward`.
        Returns:
            Float32 scalars, to be added over micro-batches and processes.
        """
        batch = LabelBatch(labels, self.num_classes, self.ignore_index, self.class_weights)
        counts = {name: term.count(batch) for name, (_, term) in self.terms.items()}
        return {name: count for name, count in counts.items() if count is not None}

    def set_progress(self, share: float) -> None:
        """Move every schedule to `share` of the training, in [0, 1]."""

    def _check_shapes(self, logits: Tensor, labels: Tensor) -> None:
        if logits.ndim != 4 or logits.shape[1] != self.num_classes:
            raise InputError("logits", found=tuple(logits.shape), allowed=f"(N, {self.num_classes}, h, w)")
        if labels.ndim not in (3, 4) or labels.shape[0] != logits.shape[0]:
            raise InputError("labels", found=tuple(labels.shape), allowed=f"({logits.shape[0]}, H, W)")
        if labels.is_floating_point():
            raise InputError("labels", found=labels.dtype, allowed="an integer type")

    def _choose_reduction(self, normalizers: Mapping[str, Tensor] | None, steps: int) -> Reduction:
        synced = self.training and torch.is_grad_enabled() and torch.distributed.is_available()
        processes = torch.distributed.get_world_size() if synced and torch.distributed.is_initialized() else 1
        if normalizers is None:
            return Reduction(processes, processes / steps, 1 / steps, 1 / steps)
        share = 1 / (processes * steps)
        return Reduction(processes, 1 / steps, share, share)

    def _choose_denominators(
        self, batch: LabelBatch, normalizers: Mapping[str, Tensor] | None
    ) -> dict[str, Tensor | None]:
        """Return what every term's sum is divided by; None for terms that are finished from sums."""
        chosen: dict[str, Tensor | None] = {}
        for name, (_, term) in self.terms.items():
            own = term.count(batch)
            given = None if normalizers is None or own is None else normalizers.get(name)
            chosen[name] = own if given is None else given.to(batch.labels.device)
        return chosen

    def _stream(
        self, logits: Tensor, batch: LabelBatch, denominators: Mapping[str, Tensor | None], reduction: Reduction
    ) -> Tensor:
        wants_gradient = torch.is_grad_enabled() and logits.requires_grad
        with torch.no_grad():
            work = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
            gradient = torch.zeros_like(work, memory_format=torch.contiguous_format) if wants_gradient else None
            stable = self._inspect(work, batch)
            pixels, overlaps = {}, {}
            for name, (weight, term) in self.terms.items():
                denominator, zero = denominators[name], work.new_zeros(())
                if isinstance(term, PixelTerm):
                    pixels[name] = PixelPart(term, invert(cast("Tensor", denominator), work) * weight, zero)
                elif isinstance(term, OverlapTerm):
                    overlaps[name] = OverlapPart(term, work.new_tensor(weight), denominator, zero)
            smoothed = any(part.term.smoothing > 0 for part in pixels.values())
            grid = choose_grid(_size(work), _size(batch.labels), self.num_classes + int(smoothed))
            walk = SoftmaxWalk(work, batch, grid, stable, smoothed)
            walk_softmax(walk, list(pixels.values()), list(overlaps.values()), reduction, gradient)
            values = {name: part.value for name, part in overlaps.items()}
            for name, pixel in pixels.items():
                values[name] = pixel.value * invert(cast("Tensor", denominators[name]), work)
            total = self._add_parts(values)
        if gradient is None:
            return total
        return cast("Tensor", _Streamed.apply(logits, total, gradient))  # type: ignore[no-untyped-call]

    def _evaluate_plainly(
        self, logits: Tensor, batch: LabelBatch, denominators: Mapping[str, Tensor | None], reduction: Reduction
    ) -> Tensor:
        self._inspect(logits.detach(), batch)
        terms = {name: term for name, (_, term) in self.terms.items()}
        values = evaluate_plainly(terms, logits, batch, denominators, reduction)
        return self._add_parts(values)

    def _add_parts(self, values: Mapping[str, Tensor]) -> Tensor:
        self.parts = {name: values[name].detach() for name in self.terms}
        return torch.stack([values[name] * weight for name, (weight, _) in self.terms.items()]).sum()

    def _inspect(self, logits: Tensor, batch: LabelBatch) -> bool:
        """Refuse labels outside the classes; return whether the logits' range asks for the stable way. Waits once."""
        labels = batch.labels
        outside = ((labels < 0) | (labels >= self.num_classes)) & batch.valid
        spread = (logits.amax(1) - logits.amin(1)).amax()
        bad, widest = torch.stack([outside.sum().to(torch.float64), spread.to(torch.float64)]).tolist()
        if bad:
            values = torch.unique(labels[outside])[:5].tolist()
            allowed = f"0..{self.num_classes - 1}, or {self.ignore_index} for ignored pixels"
            raise InputError(f"labels: {int(bad)} pixels are outside the classes", found=values, allowed=allowed)
        return not widest < SAFE_RANGE


def invert(denominator: Tensor, like: Tensor) -> Tensor:
    """Return 1 / denominator in the type of `like`, 0 where it is 0."""
    safe = denominator.to(like)
    return torch.where(safe > 0, 1 / safe.masked_fill(safe <= 0, 1), 0)


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]


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
        ignore_index: The label that counts nowhere.
        class_weights: One weight a class, or weights by class name (the others weigh 1).
        class_names: Names of the classes, for weights by name.
        plain: Build the upsampled logits and use autograd, for comparison: the same numbers, slower and larger.
    Raises:
        InputError: If a term, a parameter, a class or a weight is not one that exists.
    """
    if not config:
        raise InputError("losses: no term is named", allowed=", ".join(sorted(LOSSES)))
    weights = read_class_weights(class_weights, num_classes, class_names)
    terms = {name: build_term(name, options, num_classes) for name, options in config.items()}
    return Criterion(terms, num_classes, ignore_index, weights, plain)


def build_term(name: str, options: Any, num_classes: int) -> tuple[float, Term]:
    """Return the weight and the term of one entry of a recipe's `losses`."""
    if name not in LOSSES:
        raise InputError("losses: no such term", found=name, fix=suggest(name, LOSSES))
    values: dict[str, Any] = dict(options) if isinstance(options, Mapping) else {"weight": options}
    weight = float(values.pop("weight", 1.0))
    known = [field.name for field in fields(LOSSES[name])]
    for key in values:
        if key not in known:
            raise InputError(f"losses.{name}: no such parameter", found=key, fix=suggest(key, [*known, "weight"]))
    term = replace(LOSSES[name](), **values)
    if num_classes == 1 and term.needs_softmax:
        fix = "use binary_cross_entropy or sigmoid_focal for one logit, or two classes"
        raise InputError(f"losses.{name}: a softmax needs at least two classes", found="num_classes=1", fix=fix)
    term.check()
    return weight, term


def read_class_weights(
    given: Tensor | Sequence[float] | Mapping[str, float] | None, num_classes: int, names: Sequence[str] | None
) -> Tensor | None:
    """Return one float32 weight a class, shape (C,), or None.

    Raises:
        InputError: If a class does not exist, the count is wrong, or a weight is negative or not finite.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        if names is None:
            raise InputError("class_weights: by name they need class_names", found=list(given), fix="pass class_names")
        for name in given:
            if name not in names:
                raise InputError("class_weights: no such class", found=name, fix=suggest(str(name), names))
        given = [float(given.get(name, 1.0)) for name in names]
    weights = torch.as_tensor(given, dtype=torch.float32).detach().clone()
    if weights.shape != (num_classes,):
        count = tuple(weights.shape)
        raise InputError("class_weights: a wrong count of weights", found=count, allowed=f"{num_classes} numbers")
    if not bool(torch.isfinite(weights).all() & (weights >= 0).all()):
        found = weights.tolist()
        raise InputError("class_weights: a weight is negative or not finite", found=found, allowed="0 or more")
    return weights
