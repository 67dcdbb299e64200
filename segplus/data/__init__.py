"""Data sets: images and masks as they lie on disk or the Hub, read as class ids."""

from segplus.data.checking import SplitCheck, check_split
from segplus.data.dataset import SegmentationData, SegmentationSplit
from segplus.data.inspection.audit import Audit, inspect_dataset
from segplus.data.inspection.inspecting import inspect
from segplus.data.loading import load_segmentation_dataset

__all__ = [
    "Audit",
    "SegmentationData",
    "SegmentationSplit",
    "SplitCheck",
    "check_split",
    "inspect",
    "inspect_dataset",
    "load_segmentation_dataset",
]
