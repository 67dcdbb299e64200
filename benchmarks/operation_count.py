"""What a step would launch on an accelerator, and what it would wait for, counted on CPU tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from segplus.losses import criterion

# Views that are not declared as such, and operations that only allocate or ask for a type.
FREE = ("empty", "new_empty", "empty_like", "detach", "_unsafe_view", "squeeze_", "unsqueeze_", "promote_types")
# What needs a number from the device before it can return, or copies one there (`lift_fresh`, of torch.tensor).
WAITING = (
    *("_local_scalar_dense", "nonzero", "masked_select", "bincount", "equal", "is_nonzero", "repeat_interleave"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "lift_fresh", "_linalg_check_errors"),
)


class OperationCount(TorchDispatchMode):
    """Counts the operations below autograd by name, views and allocations left out, and those that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count one operation and run it."""
        name = function.overloadpacket.__name__
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in function._schema.returns)
        if not is_view and name not in FREE:
            self.operations[name] += 1
        indices = args[1] if name in ("index", "index_put_", "index_put", "_index_put_impl_") else ()
        masked = any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)
        if name in WAITING or masked:
            self.waits[name] += 1
        return function(*args, **(kwargs or {}))


def force_device_policy() -> AbstractContextManager[Any]:
    """Let criteria walk CPU tensors as they walk a GPU's: all images together, in large chunks."""
    return mock.patch.object(criterion, "joins_images", return_value=True)


def count_operations(step: Callable[[], object]) -> OperationCount:
    """Return what a step launches and waits for; reading a tensor as a list or on the CPU is a wait."""
    count, copy, read = OperationCount(), Tensor.cpu, Tensor.tolist

    def copy_and_count(tensor: Tensor) -> Tensor:
        count.waits["cpu"] += 1
        return copy(tensor)

    def read_and_count(tensor: Tensor) -> Any:
        count.waits["tolist"] += 1
        return read(tensor)

    with mock.patch.object(Tensor, "cpu", copy_and_count), mock.patch.object(Tensor, "tolist", read_and_count), count:
        step()
    return count


def measure_alive(step: Callable[[], object]) -> tuple[int, int]:
    """Return the bytes of a step's largest allocation, and of all that are alive at once beyond what was before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(sizes), int(torch.tensor(sizes).cumsum(0).max())
