"""The weighted sum of terms that a recipe names, on logits at the model's stride."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.distributed
from torch import Tensor, nn

from segplus.errors import InputError
from segplus.losses.channel_terms import ChannelTerm
from segplus.losses.overlap import OverlapTerm
from segplus.losses.pixelwise import PixelTerm
from segplus.losses.plain import evaluate_plainly
from segplus.losses.row_terms import RowTerm, stream_row_terms
from segplus.losses.schedules import Schedule
from segplus.losses.sigmoid import SigmoidTerm, stream_sigmoid_terms
from segplus.losses.softmax import SAFE_RANGE, SoftmaxWalk
from segplus.losses.softmax_terms import stream_softmax_terms
from segplus.losses.terms import LabelBatch, Reduction, Summand, Term, TermType, widen_labels
from segplus.losses.upsample import choose_grid, joins_images

# What a logit below it, such as the -inf of a masked class, counts as.
LOWEST = torch.finfo(torch.float32).min

# Logits beyond it, or farther apart, are walked in float64: in float32 differences, sums over pixels and squares of
# masked logits would overflow.
EXTREME = 1e18


@dataclass(frozen=True)
class Entry:
    """One line of a recipe's losses.

    Args:
        weight: The weight in the sum.
        term_type: The term.
        values: Its parameters that are given; numbers may be schedules.
    """

    weight: float | Schedule
    term_type: type[Term]
    values: dict[str, Any]

    def build(self, share: float, tensors: Mapping[str, Tensor] | None = None) -> tuple[float, Term]:
        """Return weight and term at a share of the training, with these copies of its tensors."""
        values = {name: _evaluate(value, share) for name, value in (self.values | dict(tensors or {})).items()}
        return float(_evaluate(self.weight, share)), self.term_type(**values)


def _evaluate(value: Any, share: float) -> Any:
    return value.evaluate(share) if isinstance(value, Schedule) else value


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

    `term_values` keeps the detached, unweighted value of every term of the last call by its name.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        entries: Mapping[str, Entry],
        num_classes: int,
        ignore_index: int,
        class_weights: Tensor | None,
        plain: bool,
    ) -> None:
        super().__init__()
        self.entries = dict(entries)
        self.num_classes, self.ignore_index, self.plain = num_classes, ignore_index, plain
        self.register_buffer("class_weights", class_weights, persistent=False)
        for key, tensor in self._list_tensors():
            self.register_buffer(key, tensor, persistent=False)
        self.term_values: dict[str, Tensor] = {}
        self.set_progress(0.0)

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
            labels: Class ids of any integer type, shape (N, H, W); ignore_index is ignored.
            normalizers: Denominators by term: `count_normalizers` summed over the micro-batches of an accumulated step
                and over processes. The value then is this call's share: shares add up, over micro-batches and
                processes, to the value of the whole batch. None where the call is a whole batch by itself.
            accumulation_steps: Micro-batches of the accumulated step, by which terms without a denominator are divided.
        Returns:
            Scalar, float32 (float64 for float64 logits); 0 when every pixel is ignored.
        Raises:
            InputError: If shapes do not fit, or on a CPU a label is outside [0, C) and not ignore_index. An accelerator
                would have to be waited for: there the value is NaN, and `check_labels` says why.
        """
        self._check_shapes(logits, labels)
        batch = self._open_batch(labels)
        reduction = self._choose_reduction(normalizers, accumulation_steps)
        joined = joins_images(logits.device) and not self.plain
        with torch.autocast(logits.device.type, enabled=False), keep_float32(logits.device):
            work = logits.to(torch.promote_types(logits.dtype, torch.float32))
            if joined:
                return self._stream_joined(logits, work.detach(), batch, normalizers, reduction)
            self.check_labels(labels)
            stable, extreme = self._inspect_range(work.detach())
            if extreme:
                work = work.to(batch.sum_dtype).clamp(min=max(torch.finfo(logits.dtype).min, LOWEST))
            summands = self._open_summands(batch, normalizers, work.new_zeros(()))
            if self.plain:
                value = self._add_terms(evaluate_plainly(summands, work, batch, reduction))
            else:
                value = self._stream(logits, work.detach(), batch, summands, reduction, stable=stable)
            return self._narrow(value, logits.dtype) if extreme else value

    def count_normalizers(self, labels: Tensor) -> dict[str, Tensor]:
        """Return the denominators of one micro-batch by term; terms that have none are absent.

        Args:
            labels: As in `forward`.
        Returns:
            Float64 scalars, to be added over micro-batches and processes.
        """
        batch = self._open_batch(labels)
        counts = {name: term.count(batch) for name, (_, term) in self.terms.items()}
        return {name: count for name, count in counts.items() if count is not None}

    def check_labels(self, labels: Tensor) -> None:
        """Raise InputError where a label is outside [0, C) and not ignore_index. Waits for an accelerator.

        Args:
            labels: As in `forward`.
        """
        batch = self._open_batch(labels)
        outside = self._find_outside(batch)
        count = int(outside.sum())
        if count:
            values = torch.unique(batch.labels[outside])[:5].tolist()
            allowed = f"0..{self._count_ids(batch) - 1}, or {self.ignore_index} for ignored pixels"
            raise InputError(f"labels: {count} pixels are outside the classes", found=values, allowed=allowed)

    def set_progress(self, share: float) -> None:
        """Move every schedule to `share` of the training, in [0, 1]."""
        self.share = share
        own = dict(self.named_buffers())
        self.terms = {
            name: entry.build(share, {p: own[f"{name}_{p}"] for p, v in entry.values.items() if isinstance(v, Tensor)})
            for name, entry in self.entries.items()
        }

    def _list_tensors(self) -> list[tuple[str, Tensor]]:
        """Return the parameters with one number a class, as buffers that move with the module."""
        return [
            (f"{name}_{parameter}", value)
            for name, entry in self.entries.items()
            for parameter, value in entry.values.items()
            if isinstance(value, Tensor)
        ]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Criterion:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.set_progress(self.share)  # the terms take the moved buffers
        return self

    def _check_shapes(self, logits: Tensor, labels: Tensor) -> None:
        if logits.ndim != 4 or logits.shape[1] != self.num_classes:
            raise InputError("logits", found=tuple(logits.shape), allowed=f"(N, {self.num_classes}, h, w)")
        multi_label = all(term.takes_multi_label for _, term in self.terms.values())
        single = labels.ndim == 3 and len(labels) == len(logits)
        if not single and not (multi_label and labels.ndim == 4 and labels.shape[:2] == logits.shape[:2]):
            more = f", or ({len(logits)}, {self.num_classes}, H, W)" if multi_label else ""
            raise InputError("labels", found=tuple(labels.shape), allowed=f"({len(logits)}, H, W){more}")

    def _open_batch(self, labels: Tensor) -> LabelBatch:
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise InputError("labels", found=labels.dtype, allowed="an integer type")
        labels = widen_labels(labels, self.num_classes, self.ignore_index)
        return LabelBatch(labels, self.num_classes, self.ignore_index, self.class_weights)

    def _choose_reduction(self, normalizers: Mapping[str, Tensor] | None, steps: int) -> Reduction:
        synced = self.training and torch.is_grad_enabled() and torch.distributed.is_available()
        processes = torch.distributed.get_world_size() if synced and torch.distributed.is_initialized() else 1
        return Reduction(processes, steps if normalizers is None else processes * steps)

    def _open_summands(
        self, batch: LabelBatch, normalizers: Mapping[str, Tensor] | None, zero: Tensor
    ) -> dict[str, Summand[Any]]:
        summands = {}
        for name, (weight, term) in self.terms.items():
            if normalizers is not None and name in normalizers:
                count: Tensor | None = normalizers[name].to(zero.device)
            else:
                count = term.count(batch)
                if normalizers is not None and count is not None:
                    raise InputError("normalizers: a term is missing", found=sorted(normalizers), allowed=name)
            summands[name] = Summand(term, weight, count, zero.clone())
        return summands

    def _stream(
        self,
        logits: Tensor,
        work: Tensor,
        batch: LabelBatch,
        summands: Mapping[str, Summand[Any]],
        reduction: Reduction,
        *,
        stable: bool,
        joined: bool = False,
    ) -> Tensor:
        wants_gradient = torch.is_grad_enabled() and logits.requires_grad
        with torch.no_grad():
            gradient = torch.zeros_like(work, memory_format=torch.contiguous_format) if wants_gradient else None
            pixels, overlaps = _select(summands, PixelTerm), _select(summands, OverlapTerm)
            channelled, sigmoids = _select(summands, ChannelTerm), _select(summands, SigmoidTerm)
            smoothed = any(summand.term.smoothing > 0 for summand in pixels)
            images = len(work) if joined else 0
            grid = choose_grid((work.shape[2], work.shape[3]), batch.size, self.num_classes + int(smoothed), images)
            if pixels or overlaps or channelled:
                walk = SoftmaxWalk(work, batch, grid, joined=joined, stable=stable, smoothed=smoothed)
                stream_softmax_terms(walk, pixels, overlaps, channelled, reduction, gradient)
            if sigmoids:
                stream_sigmoid_terms(work, batch, grid, joined, sigmoids, gradient)
            for summand in _select(summands, RowTerm):
                stream_row_terms(work, batch, joined, summand, gradient)
            total = self._add_terms({name: summand.value for name, summand in summands.items()})
        if gradient is None:
            return total
        return cast("Tensor", _Streamed.apply(logits, total, gradient))  # type: ignore[no-untyped-call]

    def _add_terms(self, values: Mapping[str, Tensor]) -> Tensor:
        self.term_values = {name: values[name].detach() for name in self.terms}
        return torch.stack([values[name] * weight for name, (weight, _) in self.terms.items()]).sum()

    def _narrow(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a value that was computed in float64 in the type that others have, as large as that holds."""
        wanted = torch.promote_types(dtype, torch.float32)
        self.term_values = {name: term.clamp(LOWEST, -LOWEST).to(wanted) for name, term in self.term_values.items()}
        return value.clamp(LOWEST, -LOWEST).to(wanted)

    def _stream_joined(
        self,
        logits: Tensor,
        work: Tensor,
        batch: LabelBatch,
        normalizers: Mapping[str, Tensor] | None,
        reduction: Reduction,
    ) -> Tensor:
        """Return the value without a wait: no number is read from the device."""
        outside = self._find_outside(batch)
        kept = batch.labels.masked_fill(outside, self.ignore_index)
        eight_bits = self._count_ids(batch) <= 255 and 0 <= self.ignore_index <= 255
        batch, wrong = replace(batch, labels=kept.to(torch.uint8) if eight_bits else kept), outside.any()
        del kept, outside
        summands = self._open_summands(batch, normalizers, work.new_zeros(()))
        value = self._stream(logits, work, batch, summands, reduction, stable=True, joined=True)
        return value.masked_fill(wrong, torch.nan)

    def _count_ids(self, batch: LabelBatch) -> int:
        return 2 if batch.labels.ndim == 4 else max(self.num_classes, 2)

    def _find_outside(self, batch: LabelBatch) -> Tensor:
        return ((batch.labels < 0) | (batch.labels >= self._count_ids(batch))) & batch.valid

    def _inspect_range(self, logits: Tensor) -> tuple[bool, bool]:
        """Return whether the range of logits asks for the stable way, and whether float32 would overflow."""
        lowest = logits.amin(1)
        widest, least = torch.stack([(logits.amax(1) - lowest).amax(), lowest.amin()]).tolist()
        return not widest < SAFE_RANGE, not (widest < EXTREME and least > -EXTREME)


@contextmanager
def keep_float32(device: torch.device) -> Iterator[None]:
    """Multiply matrices in float32 also where a run asks for TF32, which moves an upsampled logit by up to 1e-3."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _select(summands: Mapping[str, Summand[Any]], term_type: type[TermType]) -> list[Summand[TermType]]:
    return [summand for summand in summands.values() if isinstance(summand.term, term_type)]
