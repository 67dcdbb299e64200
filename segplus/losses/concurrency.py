"""Images side by side on a CPU: one thread an image instead of all threads on every small operation."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


# Upsampled values of one image below which Python's own lock makes two threads slower than one.
LEAST_VALUES = 4_000_000


def map_images(function: Callable[[int], Result], count: int, device: torch.device, values: int) -> list[Result]:
    """Return the function's results for every image of a batch, in order.

    Operations on a chunk take tens of microseconds. Shared by several threads, each would end in a barrier, which costs
    little on an idle machine and many times the work where data-loading workers want the same cores. So threads take
    whole images, and the results do not depend on their number. Where that would leave half of the threads idle, or on
    other devices, images come one after the other.

    Args:
        function: Called with the index of an image, without a gradient; must not write to what other images share.
        count: Number of images.
        device: Of the batch.
        values: Upsampled values of one image, classes times pixels.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or 2 * count <= threads or count == 1 or values < LEAST_VALUES:
        return [function(index) for index in range(count)]

    inference = torch.is_inference_mode_enabled()

    def call(index: int) -> Result:
        with torch.inference_mode(inference), torch.no_grad():  # modes belong to the thread
            return function(index)

    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(threads, count), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(call, range(count)))
    finally:
        torch.set_num_threads(threads)
