"""What sets two recipes apart."""

from __future__ import annotations


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
