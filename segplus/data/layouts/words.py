"""What people call images and masks: their folders, and the last or first words of their names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product

IMAGE_FOLDERS = (
    "images", "image", "imgs", "img", "photos", "jpegimages", "inputs", "input", "rgb", "pictures",
    "original", "original_images", "raw_images", "frames", "image_files",
)  # fmt: skip
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "annot", "segmentation", "segmentations", "gt",
    "ground_truth", "groundtruth", "targets", "target", "mask_images", "1st_manual", "segmentationclass", "manual1",
    "gts", "truth", "annotated", "label_images", "ground truth", "seg", "segs", "semantic", "labeled", "labelled",
)  # fmt: skip
_MASK_WORDS = frozenset(MASK_FOLDERS) | {"label_viz", "anno", "lbl", "lbls", "lab", "manual", "segmap", "segmaps"}
_IMAGE_WORDS = frozenset(IMAGE_FOLDERS) | {"photo", "picture", "raw", "sat", "original", "originals", "optical"}

# What people call folders of images in which there is nothing to mark, and the class of such pixels.
_NOTHING = re.compile(
    "background|bg|good|normal|ok|negatives?|clean|healthy|intact|nothing|none|empty"
    "|(no|non|without) (?!data|labels?|class|information)[a-z ]+"
)

_LAST_WORD = re.compile(r"(?P<key>.*)(?P<word>[_. -][A-Za-z]+)")
_FIRST_WORD = re.compile(r"(?P<word>[A-Za-z]+[_. -])(?P<key>.*)")


def is_mask_word(word: str) -> bool:
    """Return whether a folder or the last word of a file's name says that it is a mask."""
    return word.lower() in _MASK_WORDS


def shows_nothing(name: str) -> bool:
    """Return whether the name of a folder or a class says that nothing is there that would be marked."""
    return _NOTHING.fullmatch(" ".join(re.findall("[a-z]+", name.lower()))) is not None


def is_image_word(word: str) -> bool:
    """Return whether a folder or the last word of a file's name says that it is an image."""
    return word.lower() in _IMAGE_WORDS


def match_folders(names: Iterable[str], usual: tuple[str, ...]) -> list[str]:
    """Return the names that are usual ones of image or of mask folders, or else those that have such a word in them.

    Args:
        names: Names of folders, such as `label_images_semantic` or `masks_png`.
        usual: IMAGE_FOLDERS or MASK_FOLDERS.
    """
    given = list(names)
    return [name for name in given if name.lower() in usual] or [name for name in given if find_kind(name) is usual]


def find_kind(name: str) -> tuple[str, ...] | None:
    """Return IMAGE_FOLDERS or MASK_FOLDERS where a word of a folder's name says so; the word of a mask is decisive."""
    name = re.split("[_-]with[_-]", name)[0]  # frames-with-annotations: what else there is of them
    words = set(re.findall("[A-Z]?[a-z]+|[A-Z]+", name)) | set(re.findall("[a-z]+", name.lower()))
    if any(is_mask_word(word) for word in words):
        return MASK_FOLDERS
    return IMAGE_FOLDERS if any(is_image_word(word) for word in words) else None


def split_by_words(files: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Return (images, masks) where every name ends, or begins, in one of two words, one of them a usual one."""
    found = []
    for expression in (_LAST_WORD, _FIRST_WORD):
        named = _group_by_word(files, expression)
        if len(named) != 2:
            continue
        (first, one), (second, other) = sorted(named.items(), key=lambda item: rank_word(item[0]))
        same = one.keys() == other.keys() and len(one) + len(other) == len(files)
        if same and rank_word(first) < rank_word(second):
            found.append((sorted(one.values()), sorted(other.values())))
    return found


def find_patterns(images: Sequence[str], masks: Sequence[str]) -> tuple[str, str] | None:
    """Return the two patterns that pair most of the files by the last or first words of their names, None without any.

    Args:
        images: Names of the images, or of all files where they lie together with the masks.
        masks: Names of the masks, or the same names.
    """
    best, found = (1, 0), None
    for expression in (_LAST_WORD, _FIRST_WORD):
        left, right = _group_by_word(images, expression), _group_by_word(masks, expression)
        if images is not masks:
            left[""] = {os.path.splitext(path)[0]: path for path in images}
        for (image, one), (mask, other) in product(left.items(), right.items()):
            score = len(one.keys() & other.keys()), rank_word(mask) - rank_word(image)
            if image != mask and score[1] >= 0 and score > best:
                best = score
                found = (
                    _write_pattern(image, [*one.values()], expression),
                    _write_pattern(mask, [*other.values()], expression),
                )
    return found


def propose_patterns(images: Sequence[str], masks: Sequence[str]) -> str:
    """Return the two lines that state what `find_patterns` finds, or what such lines hold."""
    found = find_patterns(images, masks)
    if found:
        return f"data.image_pattern: '{found[0]}' and data.mask_pattern: '{found[1]}'"
    return "data.image_pattern and data.mask_pattern: regular expressions whose groups are the same for image and mask"


def _group_by_word(files: Sequence[str], expression: re.Pattern[str]) -> dict[str, dict[str, str]]:
    """Return the last or first word of names, with its mark -> what is left of a path without it -> the path."""
    named: dict[str, dict[str, str]] = {}
    for path in files:
        folder, name = os.path.split(os.path.splitext(path)[0])
        match = expression.fullmatch(name)
        if match is not None:
            named.setdefault(match["word"], {})[os.path.join(folder, match["key"])] = path
    return named


def rank_word(word: str) -> int:
    """Return 0 for the usual word of an image, 2 for that of a mask, 1 for any other."""
    plain = word.strip("_. -")
    return 2 if is_mask_word(plain) else 0 if is_image_word(plain) else 1


def _write_pattern(word: str, files: Sequence[str], expression: re.Pattern[str]) -> str:
    """Return a regular expression for names with a word and the suffix that most files have."""
    (suffix, _), *_ = Counter(os.path.splitext(path)[1] for path in files).most_common(1)
    plain = word.replace(".", r"\.")
    key = f"(.*){plain}" if expression is _LAST_WORD else f"{plain}(.*)"
    return f"^{key}" + re.escape(suffix) + "$"
