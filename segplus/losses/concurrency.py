"""Images side by side on a CPU: one thread an image instead of all threads on every small operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


# Upsampled values of one image below which Python's own lock makes two threads slower than one.
LEAST_VALUES = 4_000_000


def map_images(
    function: Callable[[slice], Result], groups: Sequence[slice], device: torch.device, values: int
) -> list[Result]:
    """Return the function's results for every group of images of a batch, in order.

    Operations on a chunk take tens of microseconds. Shared by several threads, each would end in a barrier, which costs
    little on an idle machine and many times the work where data-loading workers want the same cores. So threads take
    whole images, and the results do not depend on their number. Where that would leave half of the threads idle, or on
    other devices, one comes after the other.

    Args:
        function: Called with a group, without a gradient; must not write to what other groups share.
        groups: Images that are walked together: on a CPU one by one.
        device: Of the batch.
        values: Upsampled values of one image, classes times pixels.
    """
    threads, count = torch.get_num_threads(), len(groups)
    if device.type != "cpu" or threads == 1 or 2 * count <= threads or count == 1 or values < LEAST_VALUES:
        return [function(images) for images in groups]

    inference = torch.is_inference_mode_enabled()

    def call(images: slice) -> Result:
        with torch.inference_mode(inference), torch.no_grad():  # modes belong to the thread
            return function(images)

    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(threads, count), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(call, groups))
    finally:
        torch.set_num_threads(threads)
