"""Data sets: images and masks as they lie on disk or the Hub, read as class ids."""

from segplus.data.checking import check_split, check_splits
from segplus.data.dataset import SegmentationSplit
from segplus.data.loading import SegmentationData, load_segmentation_dataset
from segplus.data.statistics import SplitStatistics

__all__ = [
    "SegmentationData",
    "SegmentationSplit",
    "SplitStatistics",
    "check_split",
    "check_splits",
    "load_segmentation_dataset",
]
