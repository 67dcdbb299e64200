"""What a training line reports beside the loss: its parts, images per second, and time spent waiting for data."""

from __future__ import annotations

import time

import torch
from accelerate import Accelerator


class StepMeters:
    """Sums between two log lines."""

    def __init__(self) -> None:
        self._parts: dict[str, torch.Tensor] = {}
        self._images = 0
        self._steps = 0
        self._wait_seconds = 0.0
        self._started: float | None = None

    def start_step(self) -> None:
        """Begin an optimizer step; the clock starts at the first one after a report."""
        self._steps += 1
        self._started = time.perf_counter() if self._started is None else self._started

    def add_wait(self, seconds: float) -> None:
        """Add time in which the step waited for a batch."""
        self._wait_seconds += seconds

    def add_parts(self, parts: dict[str, torch.Tensor], images: int) -> None:
        """Add the detached parts of one micro-batch's loss, by name, and its number of images."""
        self._images += images
        for name, value in parts.items():
            self._parts[name] = self._parts.get(name, torch.zeros_like(value)) + value

    def report(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means since the last report over all processes, and start anew."""
        now = time.perf_counter()
        seconds = max(now - (self._started if self._started is not None else now), 1e-9)
        steps = max(self._steps, 1)
        # Every process holds its share of a sum over all of them, so shares are added, not averaged.
        report = {f"loss/{k}": float(accelerator.reduce(v.float(), "sum")) / steps for k, v in self._parts.items()}
        report["images_per_second"] = self._images * accelerator.num_processes / seconds
        report["seconds"] = seconds
        report["data_wait_share"] = self._wait_seconds / seconds
        self.__init__()  # type: ignore[misc]
        return report
