"""Operations and waits of the losses as a GPU would see them, counted on CPU tensors; writes operations.md.

The GPU's policy is forced: all images of a batch together, in chunks of a sixteenth of the upsampled logits. Counted
are the operations below autograd of one forward and backward pass, without views and allocations, and what would wait
for the device. In the same run the memory that is alive at once, as torch's allocator tells, is held against the naive
way's. At a smaller size than 512 nothing is asserted.

Run: python benchmarks/operations.py [--size 512]
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from losses import Case, naive_both, naive_cross_entropy, naive_dice, naive_focal, naive_lovasz, step
from machine import describe_machine
from operation_count import count_operations, force_device_policy, measure_alive

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the labels in pixels")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    rows = []
    for case in list_cases(options.size):
        rows.append(run_case(case))
        print(rows[-1], flush=True)
    lines = [
        "# Operations of the losses, as on a GPU",
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
        *describe_machine("torch"),
    ]
    options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
