"""Operations and waits of losses and evaluation as a GPU would see them, counted on CPU tensors; writes operations.md.

The GPU's policy is forced: all images of a batch together, in chunks of a sixteenth of the upsampled logits. Counted
are the operations below autograd of one forward and backward pass, without views and allocations, and what would wait
for the device. In the same run the memory that is alive at once, as torch's allocator tells, is held against the naive
way's. At a smaller size than 512 nothing is asserted. Of an evaluation one image's label map and its counts are listed.

Run: python benchmarks/operations.py [--size 512]
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from label_map import draw_logits
from losses import Case, naive_both, naive_cross_entropy, naive_dice, naive_focal, naive_lovasz, step
from machine import describe_machine
from operation_count import OperationCount, count_operations, force_device_policy, measure_alive

from segplus.metrics import confusion
from segplus.metrics import labels as labels_module
from segplus.metrics.evaluator import Evaluator
from segplus.metrics.labels import label_map
from segplus.metrics.resizing import count_values

# Operations that a term may launch, and the share of the naive way's memory that it may hold.
MOST = {"cross_entropy": 400, "cross_entropy + dice": 800}
SHARE = 1 / 16
# The naive way of a term without one of its own: at least what cross-entropy holds.
NAIVE = {"focal": naive_focal, "dice": naive_dice, "cross_entropy + dice": naive_both, "lovasz_softmax": naive_lovasz}


def list_cases(size: int) -> list[Case]:
    """Return the lines of the table; Lovasz and the boundary terms have fewer classes, which they walk one by one."""
    low, high = (size // 4, size // 4), (size, size)
    by_classes = {
        150: ["cross_entropy", "focal", "dice", "cross_entropy + dice", "ohem_cross_entropy", "binary_cross_entropy"],
        19: ["lovasz_softmax", "boundary_cross_entropy", "boundary", "soft_boundary_f1", "rmi"],
    }
    return [
        Case(
            title,
            dict.fromkeys(title.split(" + "), 1.0),
            NAIVE.get(title, naive_cross_entropy),
            8,
            classes,
            low,
            high,
            0,
            0,
        )
        for classes, titles in by_classes.items()
        for title in titles
    ]


def run_case(case: Case) -> str:
    """Return one row of the table.

    Raises:
        AssertionError: If a limit is broken.
    """
    logits, labels = case.draw()
    loss = case.choose("streamed")
    with force_device_policy():
        loss(logits, labels)  # the weights of the rows are kept
        count = count_operations(lambda: loss(logits, labels).backward())
        logits.grad = None
        largest, alive = measure_alive(lambda: loss(logits, labels).backward())
    _, naive = measure_alive(partial(step, case.choose("naive"), logits, labels))
    operations, most = count.operations.total(), MOST.get(case.title) if case.high[0] == 512 else None
    assert most is None or operations <= most, (case.title, operations, most)
    assert most is None or alive <= SHARE * naive, (case.title, alive, naive)
    waits = ", ".join(f"{number} {name}" for name, number in sorted(count.waits.items()))
    mib = 2**20
    return (
        f"| {case.title} | {case.images}, {case.classes} | {operations} | {most or ''} | {count.waits.total()} "
        f"| {waits or '-'} | {largest / mib:.0f} | {alive / mib:.0f} | {naive / mib:.0f} | 1/{naive / alive:.1f} |"
    )


def count_image(texture: str, classes: int, size: int) -> list[str]:
    """Return two rows: the label map of one image, and what the evaluator does with it."""
    logits = draw_logits(texture, classes, size // 4, size // 4)
    labels, evaluator = torch.randint(0, classes, (size, size), dtype=torch.uint8), Evaluator(classes)
    with mock.patch.object(labels_module, "count_values", return_value=count_values(torch.device("cuda"))):
        prediction = label_map(logits, (size, size))[0]
        found = count_operations(lambda: label_map(logits, (size, size)))
    with mock.patch.object(confusion, "fits_bytes", return_value=False):
        counted = count_operations(lambda: evaluator.update(prediction, labels, 0, "image"))
    return [
        _describe_count(f"label_map, {texture} logits", classes, found),
        _describe_count("Evaluator.update", classes, counted),
    ]


def _describe_count(title: str, classes: int, count: OperationCount) -> str:
    waits = ", ".join(f"{number} {name}" for name, number in sorted(count.waits.items()))
    return f"| {title} | {classes} | {count.operations.total()} | {count.waits.total()} | {waits or '-'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the labels in pixels")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    rows = []
    for case in list_cases(options.size):
        rows.append(run_case(case))
        print(rows[-1], flush=True)
    images = []
    for texture, classes in (("smooth", 19), ("smooth", 150), ("noise", 150)):
        images += count_image(texture, classes, options.size)
    print("\n".join(images), flush=True)
    lines = [
        "# Operations of losses and evaluation, as on a GPU",
        "",
        f"Forward and backward, {options.size // 4} -> {options.size} pixels a side, counted on CPU tensors with the",
        "GPU's policy forced: all images together, in chunks of a sixteenth of the upsampled logits. Views and",
        "allocations are left out. No number is a time. The script fails where cross-entropy or cross_entropy + dice",
        "needs more operations than its limit, or holds more than a sixteenth of the naive way's memory. Waits: what",
        "needs a number from the device, or copies one there, before it returns. Alive: beyond logits and labels, as",
        "torch's allocator tells, the gradient included; the naive way is the term's own, or cross-entropy's where",
        "`losses.py` has none. Made by `python benchmarks/operations.py`.",
        "",
        "| loss | N, C | operations | limit | waits | which | largest tensor, MiB | alive, MiB | naive, MiB | share |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "## Evaluation, one image",
        "",
        f"The label map of {options.size // 4} -> {options.size} pixels a side in an accelerator's chunks, and what",
        "the evaluator does with it. The tensors lie on the CPU, where the best class of a cell is found by other",
        "operations than on a GPU.",
        "",
        "| what | C | operations | waits | which |",
        "|---|---|---|---|---|",
        *images,
        "",
        *describe_machine("torch"),
    ]
    options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
