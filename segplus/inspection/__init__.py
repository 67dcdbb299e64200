"""The data doctor: every pair read once, what was found, and the recipe that fits."""

from segplus.inspection.audit import Audit, inspect_dataset
from segplus.inspection.inspecting import inspect

__all__ = ["Audit", "inspect", "inspect_dataset"]
