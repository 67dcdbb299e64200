"""What sets two recipes apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# TrainingArguments that begin so change nothing in what is learned: the Hub, trackers, and what loads data.
_APART = (
    "push_to_hub",
    "hub_",
    "report_to",
    "dataloader_num_workers",
    "dataloader_prefetch_factor",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
)


def keep_learning_keys(training: Mapping[str, Any], apart: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a recipe's `training` section without what does not change the weights.

    Args:
        training: The section.
        apart: Beginnings of further keys to leave out.
    """
    return {key: value for key, value in training.items() if not key.startswith((*_APART, *apart))}


def find_difference(before: object, now: object, where: str = "") -> tuple[str, object, object] | None:
    """Return (dotted key, value before, value now) of the first difference between two plain recipes, or None.

    Args:
        before: Nested mappings, as a recipe's YAML gives them.
        now: Likewise.
        where: Dotted key of the section.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(k for k in now if k not in before)]:
            found = find_difference(before.get(key), now.get(key), f"{where}.{key}" if where else str(key))
            if found:
                return found
        return None
    return None if before == now else (where, before, now)
