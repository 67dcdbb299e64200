"""The data doctor: every pair read once, what was found, and the recipe that fits."""

from segplus.inspection.audit import Audit, inspect_dataset

__all__ = ["Audit", "inspect_dataset"]
