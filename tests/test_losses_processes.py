"""Two processes with four images each give the gradients of one process with eight."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from segplus.losses import LOSSES, build_criterion

# Every term as it is by default, then variants: the first word names the term.
ROWS = {name: {} for name in sorted(LOSSES)} | {
    "cross_entropy smoothed": {"label_smoothing": 0.1},
    "ohem_cross_entropy threshold": {"threshold": 0.5, "min_kept": 5},
    "dice squared": {"squared": True, "log": True, "class_weighted": True, "present_only": False},
    "dice per image": {"per_image": True},
    "lovasz_softmax per image": {"per_image": True},
    "lovasz_softmax all": {"present_only": False},
}
WEIGHTS = [0.5, 2.0, 1.0, 0.0, 3.0]


def list_configs():
    return {key: {key.split()[0]: options} for key, options in ROWS.items()}


def draw_batch(ignored_rows):
    """Return eight images, the first half nearly ignored, or wholly, and without class 4."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 5, 4, 5, generator=generator, dtype=torch.float64) * 2
    labels = torch.randint(0, 5, (8, 16, 20), generator=generator)
    labels[:4, :ignored_rows] = 255
    labels[:4][labels[:4] == 4] = 255
    return logits, labels


def run_process(rank: int, folder: str, plain: bool, ignored_rows: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    logits, labels = draw_batch(ignored_rows)
    own = slice(4 * rank, 4 * rank + 4)
    found = {}
    for key, config in list_configs().items():
        criterion = build_criterion(config, 5, class_weights=WEIGHTS, plain=plain)
        counts = criterion.count_normalizers(labels[own])
        for count in counts.values():
            dist.all_reduce(count)
        leaf = logits[own].clone().requires_grad_()
        # The trainer multiplies by the number of processes because gradients are averaged over them.
        share = criterion(leaf, labels[own], normalizers=counts) * 2
        share.backward()
        value = share.detach().clone()
        dist.all_reduce(value)
        alone = None
        if not counts:
            leaf_alone = logits[own].clone().requires_grad_()
            criterion(leaf_alone, labels[own]).backward()
            alone = leaf_alone.grad / 2
        found[key] = (value / 2, leaf.grad / 2, alone)
        with torch.no_grad():
            criterion.eval()
            if rank == 0:
                criterion(logits[own], labels[own])  # evaluation exchanges nothing, so one process may be alone
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("plain", "ignored_rows"),
    [(False, 11), pytest.param(False, 16, marks=pytest.mark.slow), pytest.param(True, 11, marks=pytest.mark.slow)],
)
def test_two_processes_are_one(tmp_path: Path, plain: bool, ignored_rows: int):
    mp.spawn(run_process, (str(tmp_path), plain, ignored_rows), nprocs=2)
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    logits, labels = draw_batch(ignored_rows)
    for key, config in list_configs().items():
        leaf = logits.clone().requires_grad_()
        whole = build_criterion(config, 5, class_weights=WEIGHTS)(leaf, labels)
        whole.backward()
        found = torch.cat([half[key][1] for half in halves])
        assert float((found - leaf.grad).norm() / leaf.grad.norm()) < 1e-6, key
        assert float(halves[0][key][0]) == pytest.approx(float(whole.detach()), rel=1e-6), key
        if halves[0][key][2] is not None:
            alone = torch.cat([half[key][2] for half in halves])
            assert float((alone - leaf.grad).norm() / leaf.grad.norm()) < 1e-6, key
