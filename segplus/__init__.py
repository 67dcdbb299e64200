"""segplus: fine-tune semantic-segmentation models on your own masks.

The steps are packages of their own: `segplus.data`, `segplus.transforms`, `segplus.models`, `segplus.losses`,
`segplus.training`, `segplus.metrics`, `segplus.inference`, `segplus.reporting`.
"""

from __future__ import annotations

from importlib.metadata import version

from segplus.classes import IGNORE_INDEX, ClassMap
from segplus.errors import InputError

__version__ = version("segplus")

__all__ = ["IGNORE_INDEX", "ClassMap", "InputError", "__version__"]
