"""Gradient checkpointing for encoders that have none of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def knows_checkpointing(encoder: nn.Module) -> bool:
    """Tell whether the library checkpoints this encoder's layers by itself."""
    return any(hasattr(module, "gradient_checkpointing") for module in encoder.modules())


def list_repeated_blocks(encoder: nn.Module) -> list[nn.Module]:
    """List the modules of the outermost lists: the stages, or the blocks where there are no stages."""
    blocks: list[nn.Module] = []
    for child in encoder.children():
        blocks += list(child) if isinstance(child, nn.ModuleList) else list_repeated_blocks(child)
    return blocks


@contextmanager
def checkpoint_blocks(blocks: list[nn.Module]) -> Iterator[None]:
    """Let blocks keep only their inputs for the backward pass, and run again there.

    The statistics of BatchNorm are counted in the first run alone.
    """
    before = [vars(block).get("forward") for block in blocks]
    for block in blocks:
        contexts = partial(_make_contexts, block)
        block.forward = partial(  # type: ignore[method-assign]
            checkpoint, block.forward, use_reentrant=False, context_fn=contexts
        )
    try:
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            if forward is None:
                del block.forward
            else:
                block.forward = forward  # type: ignore[method-assign]


def _make_contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), keep_statistics(block)


@contextmanager
def keep_statistics(model: nn.Module) -> Iterator[None]:
    """Leave the statistics of BatchNorm as they are while layers run again."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
