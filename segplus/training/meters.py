"""What a training line reports beside the loss: its terms, images per second, and time spent waiting for data."""

from __future__ import annotations

import time

import torch
from accelerate import Accelerator


class StepMeters:
    """Sums between two log lines, over the time that steps took: evaluating and saving does not belong to a step.

    `seconds` is the time since the last report.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.seconds = 0.0
        self._terms: dict[str, torch.Tensor] = {}
        self._images = 0
        self._steps = 0
        self._wait_seconds = 0.0
        self._started: float | None = None

    def start_step(self, began: float) -> None:
        """Begin an optimizer step whose batches were asked for at this `time.perf_counter()` and are here now."""
        self._started = began
        self._wait_seconds += time.perf_counter() - began

    def stop_step(self) -> None:
        """End the step that was begun, if one was, and stop the clock."""
        if self._started is not None:
            self.seconds += time.perf_counter() - self._started
            self._steps += 1
            self._started = None

    def add_terms(self, terms: dict[str, torch.Tensor], images: int) -> None:
        """Add the detached terms of one micro-batch's loss, by name, and its number of images."""
        self._images += images
        for name, value in terms.items():
            self._terms[name] = self._terms.get(name, torch.zeros_like(value)) + value

    def report(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means over the steps since the last report and over all processes, and start anew."""
        seconds, steps = max(self.seconds, 1e-9), max(self._steps, 1)
        # Every process holds its share of a sum over all of them, so shares are added, not averaged.
        report = {f"loss/{k}": float(accelerator.reduce(v.float(), "sum")) / steps for k, v in self._terms.items()}
        report["images_per_second"] = self._images * accelerator.num_processes / seconds
        report["seconds"] = seconds
        report["data_wait_share"] = self._wait_seconds / seconds
        self._reset()
        return report
