"""The recipe's `data:` section."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from segplus.errors import InputError, suggest
from segplus.images import ImageRange
from segplus.recipe.patterns import check_pattern

Layout = Literal[
    "auto",
    "synthetic",
    "hub",
    "saved",
    "folders",
    "flat",
    "metadata",
    "manifest",
    "voc",
    "cityscapes",
    "ade20k",
    "coco",
    "labelme",
    "mask_files",
    "run_lengths",
]
Encoding = Literal["auto", "ids", "palette", "colors", "binary", "instances", "one_hot"]


@dataclass
class DataRecipe:
    """Where the images and masks lie, what the masks' values mean, and how they are split.

    Args:
        dataset: `synthetic`, a folder, a manifest file, or a Hub id. `${NAME}` stands for an environment variable.
        layout: How images and masks lie in the folder; `auto` recognises it, and asks if two layouts are possible.
        dataset_config: Configuration of a Hub data set.
        revision: Branch, tag or commit of a Hub data set.
        streaming: Read a Hub data set while training, without downloading it: the training split as an endless stream,
            the first `max_images` of the other splits. With `max_images.train` the training split is its head, too.
        shuffle_buffer_images: Images of a stream that are held, still encoded, and from which the next one is drawn.
        image_column: Column of the images; found by its type if not given.
        label_column: Column of the masks; found by its type if not given.
        images: Name of the folder of images, if it is not a usual one; `*` stands for any folder or part of a name, as
            in `*/images` for one folder per tile.
        masks: Name of the folder of masks, if there are several or it is not a usual one; `*` as in `images`.
        image_pattern: Regular expression on an image's file name, or with a slash in it on the path below the folder;
            its group is the key of the pair.
        mask_pattern: The same for masks.
        annotations: Annotation file (COCO, or a CSV of run lengths), relative to the data set; `{split}` stands for the
            split's name.
        run_order: Whether run lengths go down the `columns` or along the `rows`; if not given, recognised
            by the shape of the objects, and `columns` for square images.
        train_split: Name of the training split in the data set; found by the usual names if not given.
        validation_split: Name of the validation split; `none` leaves out one that exists.
        test_split: Name of the test split; `none` leaves out one that exists.
        validation_share: Share of the training images that becomes the validation split, if there is none.
        test_share: Share of the training images that becomes the test split, if there is none.
        split_seed: Seed of the splits that are drawn.
        group_pattern: Regular expression on an image's name; its first group names the group that stays in one split.
        stratify: Draw splits that each hold their share of the images of every class.
        folds: Number of cross-validation folds over the training images; 0 for none. Each fold's run gets a folder of
            its own inside training.output_dir: fold-0, fold-1, ...
        fold: The fold that becomes the validation split, from 0.
        classes: List of names, mapping of mask value to name, path of an id2label.json or another legend, or `voc` for
            the names of Pascal VOC; None reads those of the data.
        colors: Mapping of class name to [red, green, blue], or path of a legend (JSON, or CSV of name, r, g, b).
        reduce_labels: Mask value 0 is ignored and every other value is lowered by one.
        void: Mask values, class names, or colours that are ignored.
        merge: Name of a new class -> names of the classes that become it.
        unknown: What happens with a value or colour that no class has: `error` or `ignore`.
        encoding: How masks hold classes; `auto` reads single-channel values, palettes, and colours with `colors`.
        threshold: Smallest mask value that is foreground, for `encoding: binary`; 128 by default. If masks have many
            values, it must be stated.
        color_tolerance: Largest distance per channel to a colour of the legend, for lossy masks.
        instance_divisor: The class is the mask value // this, for `encoding: instances`; a smaller value that a class
            has is that class.
        mask_channel: The channel of the ids, if a mask has several channels.
        unlabelled: What pixels without a polygon are: `background` (a class of its own) or `ignore`.
        unmasked: Name of the first class where an image without a mask shows nothing else, as images without a defect
            do; by default such images are an error.
        image_range: Values [low, high] that become 0 and 255 in images deeper than 8 bits; by default the type's range.
            `{low: 0, high: 4000, clip: true}` lets single values lie outside.
        channels: Number of image channels; 3 gives RGB images, any other number arrays of shape (H, W, channels).
        cache: Folder in which decoded training images are kept and memory mapped; None decodes them every time.
        max_image_megapixels: Largest image or mask that is decoded at once; arrays and TIFF files of which only parts
            are read may be larger.
        max_images: Split -> the number of its images that are used at most.
        synthetic_images: Split -> the number of images that are drawn, for `dataset: synthetic`.
        synthetic_size_px: Height and width of the drawn images.
        seed: Seed of the drawn images.
    """

    dataset: str = "synthetic"
    layout: Layout | str = "auto"
    dataset_config: str | None = None
    revision: str | None = None
    streaming: bool = False
    shuffle_buffer_images: int = 1000
    image_column: str | None = None
    label_column: str | None = None
    images: str | None = None
    masks: str | None = None
    image_pattern: str | None = None
    mask_pattern: str | None = None
    annotations: str | None = None
    run_order: Literal["columns", "rows"] | None = None
    train_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    validation_share: float = 0.3
    test_share: float = 0.0
    split_seed: int = 0
    group_pattern: str | None = None
    stratify: bool = False
    folds: int = 0
    fold: int = 0
    classes: Any = None
    colors: Any = None
    reduce_labels: bool = False
    void: list[Any] = field(default_factory=list)
    merge: dict[str, list[str]] = field(default_factory=dict)
    unknown: Literal["error", "ignore"] = "error"
    encoding: Encoding = "auto"
    threshold: int | None = None
    color_tolerance: int = 0
    instance_divisor: int = 1000
    mask_channel: int | None = None
    unlabelled: Literal["background", "ignore"] = "background"
    unmasked: str | None = None
    image_range: list[float] | dict[str, float | bool] | None = None
    channels: int = 3
    cache: str | None = None
    max_image_megapixels: float = 179.0
    max_images: dict[str, int] = field(default_factory=dict)
    synthetic_images: dict[str, int] = field(default_factory=lambda: {"train": 192, "validation": 24, "test": 24})
    synthetic_size_px: list[int] = field(default_factory=lambda: [256, 512])
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no data set can mean."""
        self._check_ranges()
        self._check_layout()
        self._check_shares()
        self._check_folds()
        self._check_patterns()
        self._check_meanings()
        self._check_streaming()

    def _check_layout(self) -> None:
        allowed = get_args(Layout)
        if "." not in self.layout and self.layout not in allowed:
            raise InputError(
                "data.layout",
                found=repr(self.layout),
                allowed=f"{', '.join(allowed)}, or package.module.function",
                fix=suggest(self.layout, allowed),
            )

    @property
    def split_names(self) -> dict[str, str | None]:
        """The data set's own name of each split, where the recipe gives one."""
        return {"train": self.train_split, "validation": self.validation_split, "test": self.test_split}

    @property
    def streams_training(self) -> bool:
        """Whether the training split is read as a stream, of which nothing is kept."""
        return self.streaming and "train" not in self.max_images

    def _check_ranges(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "split_seed": (0, 2**32 - 1),
            "seed": (0, 2**32 - 1),
            "color_tolerance": (0, 255),
            "channels": (1, 4096),
            "mask_channel": (0, 4095),
            "instance_divisor": (1, 2**31 - 1),
            "shuffle_buffer_images": (1, 2**31 - 1),
            "max_image_megapixels": (0.0001, 1_000_000),
        }
        for key, (low, high) in ranges.items():
            value = vars(self)[key]
            if value is not None and not low <= value <= high:
                raise InputError(f"data.{key}: outside its range", found=value, allowed=f"{low} to {high}")

    def _check_shares(self) -> None:
        for key, share in (("validation_share", self.validation_share), ("test_share", self.test_share)):
            if not 0 <= share < 1:
                raise InputError(f"data.{key}: not a share", found=share, allowed="0 up to, not including, 1")
        if self.validation_share + self.test_share >= 1:
            raise InputError(
                "data.validation_share and data.test_share leave nothing to train on",
                found=f"{self.validation_share} + {self.test_share}",
                allowed="a sum below 1",
            )

    def _check_folds(self) -> None:
        if self.folds == 0 and self.fold == 0:
            return
        if self.folds < 2:
            raise InputError("data.folds: too few", found=self.folds, allowed="0, or 2 and more")
        if not 0 <= self.fold < self.folds:
            raise InputError("data.fold: no such fold", found=self.fold, allowed=f"0..{self.folds - 1}")

    def _check_patterns(self) -> None:
        for key in ("group_pattern", "image_pattern", "mask_pattern"):
            check_pattern(f"data.{key}", vars(self)[key])

    def _check_meanings(self) -> None:
        if self.classes is not None and not isinstance(self.classes, str | list | dict):
            raise InputError(
                "data.classes: not a list of names",
                found=self.classes,
                allowed="a list, a mapping value: name, or a path",
            )
        if self.colors is not None and not isinstance(self.colors, str | dict):
            raise InputError(
                "data.colors: not a legend", found=self.colors, allowed="a mapping name: [r, g, b], or a path"
            )
        try:
            _ = None if self.image_range is None else ImageRange.parse(self.image_range)
        except (ValueError, TypeError):
            allowed = "[low, high], or {low: ..., high: ..., clip: true}"
            raise InputError("data.image_range: not a range", found=self.image_range, allowed=allowed) from None
        if len(self.synthetic_size_px) != 2 or min(self.synthetic_size_px) < 1:
            raise InputError(
                "data.synthetic_size_px: not a size", found=self.synthetic_size_px, allowed="[height, width]"
            )
        drawn_px = self.synthetic_size_px[0] * self.synthetic_size_px[1] if self.dataset == "synthetic" else 0
        if drawn_px > self.max_image_megapixels * 1e6:
            raise InputError(
                "data.synthetic_size_px: above data.max_image_megapixels",
                found=self.synthetic_size_px,
                allowed=f"{self.max_image_megapixels} megapixels",
            )
        for key in ("images", "masks", "annotations"):
            if any(len(part.encode()) > 255 for part in (vars(self)[key] or "").split("/")):
                raise InputError(f"data.{key}: longer than the name of a file can be", found=vars(self)[key])
        for entry in self.void:
            if not _is_void(entry):
                raise InputError(
                    "data.void: no mask value, class name or colour",
                    found=repr(entry),
                    allowed="whole numbers below 16777216, names, [red, green, blue] from 0 to 255",
                )
        self._check_counts()

    def _check_counts(self) -> None:
        for key, counts in (("max_images", self.max_images), ("synthetic_images", self.synthetic_images)):
            for split, count in counts.items():
                if split not in ("train", "validation", "test"):
                    raise InputError(f"data.{key}: no such split", found=split, allowed="train, validation, test")
                if count < 1:
                    raise InputError(f"data.{key}.{split}: too few", found=count, allowed="1 and more")

    def _check_streaming(self) -> None:
        """Refuse what has to see every training image before the first step."""
        if not self.streams_training:
            return
        whole = {
            "folds": (self.folds, "folds are made"),
            "test_share": (self.test_share, "a share is taken"),
            "stratify": (self.stratify, "classes are balanced"),
            "group_pattern": (self.group_pattern, "groups are kept together"),
            "cache": (self.cache, "pixels are cached"),
        }
        for key, (value, what) in whole.items():
            if value:
                raise InputError(
                    f"data.{key}: {what} over a whole training split, and a stream is never read whole",
                    found=f"{key}: {value}, streaming: true",
                    fix=f"leave data.{key} out, or set data.max_images.train, or data.streaming: false",
                )


def _is_void(entry: object) -> bool:
    if isinstance(entry, list):
        return len(entry) == 3 and all(type(channel) is int and 0 <= channel <= 255 for channel in entry)
    return isinstance(entry, str) or (type(entry) is int and abs(entry) < 2**24)
