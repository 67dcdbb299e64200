"""The splits of a run: those that are there, and those made by share or by fold, groups whole, classes balanced."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from segplus.data.dataset import SegmentationSplit
from segplus.data.layouts.source import find_split
from segplus.data.statistics import measure_split
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe

Indices = npt.NDArray[np.int64]


def choose_splits(available: Mapping[str, SegmentationSplit], section: DataRecipe) -> dict[str, SegmentationSplit]:
    """Return train, validation and test: those that are there, and those that must be made."""
    asked = section.split_names
    found = {split: find_split(list(available), split, name) for split, name in asked.items()}
    splits = {split: available[name] for split, name in found.items() if name is not None}
    if "train" not in splits:
        if len(available) != 1:
            raise InputError(
                "data.train_split: no training split", found=", ".join(available), fix="set data.train_split"
            )
        splits = {"train": next(iter(available.values()))}
    made = make_fold(splits, section) if section.folds else _make_shares(splits, section, asked)
    return limit_splits({split: made[split] for split in asked if split in made}, section)


def limit_splits(splits: Mapping[str, SegmentationSplit], section: DataRecipe) -> dict[str, SegmentationSplit]:
    """Return the splits cut to data.max_images, each with its name for messages."""
    limited = {}
    for name, split in splits.items():
        limit = section.max_images.get(name, len(split))
        limited[name] = split.select(range(limit), name) if limit < len(split) else split
        limited[name].title = name
    return limited


def _make_shares(
    splits: dict[str, SegmentationSplit], section: DataRecipe, asked: Mapping[str, str | None]
) -> dict[str, SegmentationSplit]:
    shares = {
        "validation": section.validation_share if "validation" not in splits and asked["validation"] != "none" else 0.0,
        "test": section.test_share if "test" not in splits and asked["test"] != "none" else 0.0,
    }
    made = {name: share for name, share in shares.items() if share > 0}
    if not made:
        return splits
    parts = _divide(splits["train"], [1 - sum(made.values()), *made.values()], section)
    names = ["train", *made]
    return {**splits, **{name: splits["train"].select(part, name) for name, part in zip(names, parts, strict=True)}}


def make_fold(splits: dict[str, SegmentationSplit], section: DataRecipe) -> dict[str, SegmentationSplit]:
    """Return the splits of one fold; a validation split that is there is left out of the folds."""
    whole = splits["train"]
    parts = _divide(whole, [1 / section.folds] * section.folds, section, "data.folds")
    rest = np.sort(np.concatenate([part for fold, part in enumerate(parts) if fold != section.fold]))
    made = {"train": whole.select(rest, "train"), "validation": whole.select(parts[section.fold], "validation")}
    return {**splits, **made}


def _divide(whole: SegmentationSplit, shares: list[float], section: DataRecipe, key: str = "data") -> list[Indices]:
    presence = measure_split(whole).presence if section.stratify else None
    return divide(find_groups(whole.names, section.group_pattern), shares, section.split_seed, presence, key)


def describe_splits(splits: Mapping[str, SegmentationSplit], unused: Sequence[str] = ()) -> list[str]:
    """Return the line that says how many images each split has."""
    line = "splits: " + ", ".join(f"{name} {len(split)}" for name, split in splits.items())
    return [f"{line}; not used: {', '.join(unused)}" if unused else line]


def find_groups(names: Sequence[str], pattern: str | None, key: str = "data.group_pattern") -> list[str]:
    """Return each image's group: the pattern's first group in its name, or the name itself.

    Args:
        names: Names of the images.
        pattern: Regular expression; None makes each image a group.
        key: Where the pattern stands in a recipe, for messages.
    Raises:
        InputError: If a name does not match.
    """
    if pattern is None:
        return [str(index) for index in range(len(names))]
    groups = []
    for name in names:
        match = re.search(pattern, name)
        if match is None or match[1] is None:
            raise InputError(f"{key}: an image has no group", found=name, allowed=pattern, fix="match every name")
        groups.append(match[1])
    return groups


def divide(
    groups: Sequence[str],
    shares: Sequence[float],
    seed: int,
    presence: npt.NDArray[np.bool_] | None = None,
    key: str = "data",
) -> list[Indices]:
    """Return the indices of each part; a group lies whole in one part.

    Args:
        groups: Group of each image.
        shares: Share of the images that each part should get; sums to 1.
        seed: Seed of the order in which groups are placed.
        presence: Whether an image holds a class, shape (images, C); the parts then hold each class in these shares, as
            far as groups allow. None balances the number of images only.
        key: What the message begins with.

    Returns:
        One sorted array of indices a part, none empty.

    Raises:
        InputError: If there are fewer groups than parts.
    Reference:
        Sechidis, Tsoumakas, Vlahavas, On the Stratification of Multi-Label Data, 2011, algorithm 1, over groups.
    """
    keys, group_of = np.unique(np.asarray(groups), return_inverse=True)
    if len(keys) < len(shares):
        ungrouped = len(keys) == len(group_of)
        raise InputError(
            f"{key}: {len(keys)} {'images' if ungrouped else 'groups'} cannot make {len(shares)} splits",
            found=None if ungrouped else ", ".join(map(str, keys[:5])),
            fix="add images, or use fewer splits" if ungrouped else "use fewer splits, or a finer data.group_pattern",
        )
    sizes = np.bincount(group_of, minlength=len(keys)).astype(np.int64)
    # The last column counts images, so that parts keep their size when no class is left to balance.
    content = np.zeros((len(keys), 1 if presence is None else presence.shape[1] + 1), dtype=np.int64)
    content[:, -1] = sizes
    if presence is not None:
        np.add.at(content[:, :-1], group_of, presence.astype(np.int64))
    part_of = _place_groups(content, np.asarray(shares, dtype=np.float64), np.random.default_rng(seed))
    return [np.flatnonzero(part_of[group_of] == part) for part in range(len(shares))]


def _place_groups(content: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], rng: np.random.Generator) -> Indices:
    """Return each group's part. content: images a group holds of each class, and in all; shape (groups, C + 1)."""
    wanted = np.outer(shares, content.sum(axis=0))  # (parts, C + 1)
    part_of = np.full(len(content), -1, dtype=np.int64)
    order = rng.permutation(len(content))
    open_groups = np.ones(len(content), dtype=bool)
    while open_groups.any():
        left = content[open_groups].astype(np.int64)
        holders = (left > 0).sum(axis=0)
        # The class that fewest of the open groups hold is placed first; the count of images itself comes last.
        rare = (
            int(np.where(holders[:-1] > 0, holders[:-1], len(content) + 1).argmin())
            if holders[:-1].any()
            else content.shape[1] - 1
        )
        chosen = [group for group in order if open_groups[group] and content[group, rare] > 0]
        chosen.sort(key=lambda group: -content[group, -1])  # large groups first; the sort is stable
        for group in chosen:
            need = wanted[:, rare] - 0.0
            best = np.flatnonzero(need >= need.max() - 1e-9)
            part = int(best[wanted[best, -1].argmax()])
            part_of[group] = part
            wanted[part] -= content[group]
            open_groups[group] = False
    for part in range(len(shares)):
        if not (part_of == part).any():
            donor = np.bincount(part_of, minlength=len(shares)).argmax()
            movable = np.flatnonzero(part_of == donor)
            part_of[movable[content[movable, -1].argmin()]] = part
    return part_of
