"""Functions that clean a label map or its probabilities, and the order in which a recipe applies them."""

from segplus.inference.postprocessing.label_steps import apply_label_steps

__all__ = ["apply_label_steps"]
