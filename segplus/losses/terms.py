"""What every term of a loss is: parameters, a normaliser, and sums over pixels with a finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
import torch.distributed
from torch import Tensor

from segplus.errors import InputError


class ImageLabels(NamedTuple):
    """The labels of some images.

    Args:
        ids: Class ids, 0 where ignored, int64, shape (n, H, W).
        valid: 1 where the label counts, 0 where it is ignored, float, shape (n, H, W).
        weights: The class weight of the label, 0 where ignored, float, shape (n, H, W).
    """

    ids: Tensor
    valid: Tensor
    weights: Tensor


def choose_sum_dtype(device: torch.device) -> torch.dtype:
    """Return the type of exact sums: float64, but on Apple's MPS, which has none."""
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True)
class LabelBatch:
    """The labels of a batch and what they count for.

    Args:
        labels: Class ids of any integer type, shape (N, H, W); multi-label terms take 0/1 of shape (N, C, H, W).
        num_classes: C.
        ignore_index: The label that is ignored.
        class_weights: One weight a class, shape (C,), or None for ones.
    """

    labels: Tensor
    num_classes: int
    ignore_index: int
    class_weights: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.labels.shape[-2], self.labels.shape[-1]

    @property
    def sum_dtype(self) -> torch.dtype:
        """The type of denominators."""
        return choose_sum_dtype(self.labels.device)

    @property
    def valid(self) -> Tensor:
        """Where labels count, bool, the shape of the labels."""
        return self.labels != self.ignore_index

    def select_images(self, images: slice, dtype: torch.dtype) -> ImageLabels:
        """Return the labels of some images, with weights of the given type."""
        label = self.labels[images]
        valid = label != self.ignore_index
        ids = label.long().masked_fill(~valid, 0)
        counts = valid.to(dtype)
        weights = counts if self.class_weights is None else self.class_weights.to(dtype)[ids] * counts
        return ImageLabels(ids, counts, weights)

    def count_pixels(self) -> Tensor:
        """Return the number of pixels that count, float64 scalar."""
        return self.valid.sum().to(self.sum_dtype)

    def weigh_pixels(self) -> Tensor:
        """Return the sum of the class weights of the pixels that count, float64 scalar."""
        if self.class_weights is None:
            return self.count_pixels()
        return (self.class_pixels.sum(0) * self.class_weights.to(self.sum_dtype)).sum()

    def count_images(self) -> Tensor:
        """Return the number of images with a pixel that counts, float64 scalar."""
        return self.valid.flatten(1).any(1).sum().to(self.sum_dtype)

    @cached_property
    def class_pixels(self) -> Tensor:
        """The pixels of every class in every image, float64, shape (N, C)."""
        ids = self.labels.flatten(1).long()  # (N, H W)
        ids = ids.masked_fill((ids < 0) | (ids >= self.num_classes) | (ids == self.ignore_index), self.num_classes)
        counts = ids.new_zeros(len(ids), self.num_classes + 1)
        # Not torch.bincount, for which an accelerator has to be waited for.
        return counts.scatter_add_(1, ids, torch.ones_like(ids))[:, :-1].to(self.sum_dtype)


def widen_labels(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Return labels in a type that holds every class and the ignore index; int32 where theirs may not.

    Compared with a number outside its range, a narrow integer wraps around instead of being different from it.

    Args:
        labels: Of any integer type.
        num_classes: C.
        ignore_index: The label that is ignored.
    """
    eight_bits = labels.dtype == torch.uint8 and 0 <= ignore_index <= 255 and num_classes <= 255
    if eight_bits or labels.dtype in (torch.int32, torch.int64):
        return labels
    return labels.to(torch.int64 if labels.dtype in (torch.uint32, torch.uint64) else torch.int32)


# Marks the field of a parameter that is one number, one a class, or numbers by class name.
BY_CLASS: dict[str, Any] = {"by_class": True}


@dataclass(frozen=True)
class Term:
    """One loss by its name: a frozen dataclass whose fields are its parameters.

    A term is exact under gradient accumulation where `count` gives its denominator from the labels alone.
    """

    needs_softmax: ClassVar[bool] = True
    takes_multi_label: ClassVar[bool] = False

    def count(self, batch: LabelBatch) -> Tensor | None:
        """Return the denominator of this batch, or None for a term that is averaged over micro-batches."""
        raise NotImplementedError

    def check(self, key: str) -> None:
        """Raise InputError where a parameter is out of range.

        Args:
            key: Where the term stands in a recipe, for messages.
        """


def differentiate(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Return the derivative of a function that treats every element by itself."""
    with torch.enable_grad():
        leaf = values.detach().requires_grad_()
        (slopes,) = torch.autograd.grad(function(leaf).sum(), leaf)
    return slopes


def require_at_least(key: str, term: Term, names: Sequence[str], least: float) -> None:
    """Raise InputError where one of a term's numbers is below `least`; None and one number a class pass."""
    for name in names:
        value = vars(term)[name]
        if isinstance(value, (int, float)) and value < least:
            raise InputError(f"{key}.{name}", found=value, allowed=f"{least} or more")


@dataclass(frozen=True)
class Reduction:
    """What the value and the gradient of a term that is finished from sums are multiplied by.

    s_r are the sums of process r, s = s_1 + ... + s_P those of all P processes, f the term's finish and D the divisor:

        term with sync (sums are added first):    value f(s) / D      gradient by s_r  P f'(s) / D
        term without (each process by itself):    value f(s_r) / D    gradient by s_r  f'(s_r) / D

    K is the number of accumulation steps. Where a call returns a mean, D = K, and gradients averaged over processes, as
    DDP does, are f'(s) / K. Where it returns its share of the whole, D = P K: the shares of all calls are added up.

    Args:
        processes: P, the processes whose sums are added before the finish; 1 where nothing is exchanged.
        divisor: D, which is K or P K.
    """

    processes: int
    divisor: int

    @property
    def value_factor(self) -> float:
        """1 / D: of every value, and of the gradient of a term without sync."""
        return 1 / self.divisor

    @property
    def synced_gradient_factor(self) -> float:
        """P / D: of the gradient of a term with sync."""
        return self.processes / self.divisor

    def add_over_processes(self, sums: Tensor) -> Tensor:
        """Return the sums of all processes; every process differentiates its own."""
        if self.processes == 1:
            return sums
        total = sums.clone()
        torch.distributed.all_reduce(total)
        return total

    def minimize_over_processes(self, values: Tensor) -> Tensor:
        """Return the smallest of all processes, number by number."""
        if self.processes == 1:
            return values
        least = values.clone()
        torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
        return least

    def gather_over_processes(self, values: Tensor, flags: Tensor) -> tuple[tuple[Tensor, Tensor], slice]:
        """Return the numbers and flags of all processes, shape (K,), and the slice that is this process' own."""
        if self.processes == 1:
            return (values, flags), slice(None)
        sizes = [torch.zeros((), dtype=torch.int64, device=values.device) for _ in range(self.processes)]
        torch.distributed.all_gather(sizes, torch.tensor(values.numel(), device=values.device))
        lengths = torch.stack(sizes).tolist()
        padded = values.new_zeros(2, max(lengths))
        padded[0, : values.numel()], padded[1, : values.numel()] = values, flags.to(values.dtype)
        everyone = [torch.empty_like(padded) for _ in lengths]
        torch.distributed.all_gather(everyone, padded)
        joined = torch.cat([rows[:, :length] for rows, length in zip(everyone, lengths, strict=True)], 1)
        start = sum(lengths[: torch.distributed.get_rank()])
        return (joined[0], joined[1] > 0), slice(start, start + values.numel())

    def scale_synced(self, value: Tensor) -> Tensor:
        """Return the value of a term with sync, its value times 1 / D and its gradient times P / D."""
        return value.detach() * self.value_factor + (value - value.detach()) * self.synced_gradient_factor


TermType = TypeVar("TermType", bound=Term)


@dataclass
class Summand(Generic[TermType]):
    """A term in one call: its weight, its denominator and its value so far.

    Args:
        term: The term.
        weight: Its weight in the sum.
        denominator: What its sum over pixels or images is divided by; None for terms that are finished from sums.
        value: Scalar, unweighted; added to while the batch is walked.
    """

    term: TermType
    weight: float
    denominator: Tensor | None
    value: Tensor

    @property
    def scale(self) -> Tensor:
        """One over the denominator, 0 where that is 0, in the type of the value."""
        assert self.denominator is not None
        count = self.denominator
        return torch.where(count > 0, 1 / count.masked_fill(count <= 0, 1), 0).to(self.value)
