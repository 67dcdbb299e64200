"""What the sums mean: findings with a level, a sentence and the first files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal, get_args

import numpy as np

from segplus.classes import ClassMap, unpack_color
from segplus.data.dataset import SegmentationSplit
from segplus.data.misreadings import choose_evenly, describe_odd_shares, find_misreadings, find_presumed_names
from segplus.data.parallel import map_pairs
from segplus.data.ranges import describe_unstated_range, find_unstated_range
from segplus.errors import InputError
from segplus.inspection.duplicates import (
    AGREEMENT,
    find_equal_images,
    find_near_pairs,
    find_shared_sequences,
    measure_agreement,
)
from segplus.inspection.measurements import TURNS, WINDOW_PX, reduce_to_grey
from segplus.inspection.tallies import MOST_OUTSIDE, NAMED, SplitTally

Level = Literal["error", "warning", "question", "note"]
LEVELS: tuple[Level, ...] = get_args(Level)
VOID_WORDS = frozenset(
    {"void", "unlabelled", "unlabeled", "ignore", "ignored", "unknown", "undefined", "dontcare", "out of roi"}
)

_AGREEMENT = 0.1  # of edges and borders; less is chance, as the best of many shifts is
_MOST_VERIFIED = 500  # images that are compared with the one whose hash is nearest
_NEAR_SHOWN = 3

# Problem of single pairs -> (level, sentence after "N pairs ").
_PAIR_PROBLEMS: dict[str, tuple[Level, str]] = {
    "unreadable": ("error", "cannot be read"),
    "sizes differ": ("error", "have an image and a mask of different sizes"),
    "lossy mask": ("warning", "have a JPEG mask, whose values are not those that were drawn"),
    "interpolated mask": (
        "warning",
        "have a mask that looks resized with interpolation: values between classes at their borders",
    ),
    "turned mask": ("warning", "have a mask that fits its image better flipped or turned"),
    "ignored mask": ("warning", "have a mask without any class"),
    "constant mask": ("note", "have a mask of one class only"),
    "constant image": ("warning", "have an image of one colour"),
    "dark image": ("note", "have a very dark image"),
    "grey image": ("note", "have an image without colour"),
}


@dataclass
class Finding:
    """Something a person should know.

    Args:
        level: "error" breaks training, "warning" may spoil it, "question" waits for an answer for which the proposed
            recipe has a stand-in, "note" is worth knowing.
        kind: A few words that name it, stable for programs.
        message: One sentence.
        files: The first files, or names.
        fix: What to do about it.
    """

    level: Level
    kind: str
    message: str
    files: list[str] = field(default_factory=list)
    fix: str | None = None


def find_pair_problems(tallies: Mapping[str, SplitTally], classes: ClassMap, channels: int = 3) -> list[Finding]:
    """Return the findings on single pairs: unreadable, of two sizes, values outside the classes, ..."""
    findings = []
    for split, tally in tallies.items():
        for name, (level, sentence) in _PAIR_PROBLEMS.items():
            problem = tally.problems.get(name)
            if problem is None:
                continue
            for one in tally.unreadable.values() if name == "unreadable" else []:
                message = f"{split}: {one.count} pairs {sentence}: {next(iter(one.details))}"
                findings.append(Finding(level, name, message, one.files, one.fix))
            if name == "unreadable":
                continue
            details = "; ".join(
                f"{text}{f' ({count} times)' if count > 1 else ''}" for text, count in problem.details.items()
            )
            message = f"{split}: {problem.count} pairs {sentence}" + (f": {details}" if details else "")
            findings.append(Finding(level, name, message, problem.files, problem.fix))
        findings += _describe_outside(split, tally, classes)
    return findings + _describe_range(tallies, channels)


def _describe_outside(split: str, tally: SplitTally, classes: ClassMap) -> list[Finding]:
    if not tally.outside:
        return []
    problem = tally.problems["outside the classes"]
    shown = [
        f"{unpack_color(value) if classes.legend else value} ({count} pixels)"
        for value, count in tally.outside.most_common(8)
    ]
    at_least = "at least " if len(tally.outside) == MOST_OUTSIDE else ""
    more = f" and {at_least}{len(tally.outside) - 8} more" if len(tally.outside) > 8 else ""
    what = "colours" if classes.legend else "values"
    message = f"{split}: mask {what} outside the classes in {problem.count} pairs: {', '.join(shown)}{more}"
    level: Level = "error" if classes.unknown == "error" else "note"
    key = "colors" if classes.legend else "classes"
    return [
        Finding(
            level,
            "outside the classes",
            message,
            problem.files,
            f"add them to data.{key} or data.void, or data.unknown: ignore",
        )
    ]


def _describe_range(tallies: Mapping[str, SplitTally], channels: int) -> list[Finding]:
    """Return one finding on the deep images of all splits that need a range: it is the same for all."""
    needed = find_unstated_range(np.stack([tally.extents for tally in tallies.values()]), channels)
    if needed is None:
        return []
    deep = {split: tally.problems.get("deep image") for split, tally in tallies.items()}
    problems = {split: problem for split, problem in deep.items() if problem}
    files = [file for problem in problems.values() for file in problem.files]
    told = describe_unstated_range(", ".join(problems), sum(one.count for one in problems.values()), needed)
    return [Finding("error", "no range", describe_mistake(told), files[:NAMED], told.fix)]


def find_misplaced_masks(tallies: Mapping[str, SplitTally]) -> list[Finding]:
    """Return findings on masks that are shifted or turned throughout a split."""
    findings = []
    for split, tally in tallies.items():
        if tally.with_edges < 2:
            continue
        profile = tally.shift_profile / tally.with_edges
        row, column = np.unravel_index(profile.argmax(), profile.shape)
        scale = tally.shift_scales / tally.with_edges
        shift = (float(column - WINDOW_PX) * scale, float(row - WINDOW_PX) * scale)
        cells = max(abs(int(row) - WINDOW_PX), abs(int(column) - WINDOW_PX))
        if cells >= 2 and profile.max() > max(_AGREEMENT, 1.2 * profile[WINDOW_PX, WINDOW_PX] + 0.02):
            moved = f"{shift[0]:+.0f} px across, {shift[1]:+.0f} px down"
            message = f"{split}: masks fit their images better when moved by about {moved}"
            findings.append(Finding("warning", "shifted masks", message))
        scores = tally.turn_scores / tally.with_edges
        if scores[1:].max() > max(_AGREEMENT, scores[0] + 0.05):
            turn = TURNS[int(scores[1:].argmax()) + 1]
            message = f"{split}: masks fit their images better when {turn}"
            fix = "of run lengths: set data.run_order to the other order" if turn == "transposed" else None
            findings.append(Finding("warning", "turned masks", message, fix=fix))
    return findings


def find_repeated_images(splits: Mapping[str, SegmentationSplit], tallies: Mapping[str, SplitTally]) -> list[Finding]:
    """Return findings on equal images, equal images with different masks, and near-equal images across splits."""
    findings = []
    groups = find_equal_images({split: tally.digests for split, tally in tallies.items()})
    unlike = [group for group in groups if len({tallies[split].mask_digests[index] for split, index in group}) > 1]

    def name(found: list[list[tuple[str, int]]]) -> list[str]:
        return [" = ".join(f"{split}/{splits[split].name(index)}" for split, index in group) for group in found[:NAMED]]

    if groups:
        across = sum(len({split for split, _ in group}) > 1 for group in groups)
        message = f"{len(groups)} images occur more than once, {across} of them in more than one split"
        findings.append(Finding("warning" if across else "note", "equal images", message, name(groups)))
    if unlike:
        message = f"{len(unlike)} equal images have different masks"
        findings.append(Finding("warning", "equal images with different masks", message, name(unlike)))
    for first, second in combinations(tallies, 2):
        findings += _find_near(splits, tallies, first, second)
    return findings


def _find_near(
    splits: Mapping[str, SegmentationSplit], tallies: Mapping[str, SplitTally], first: str, second: str
) -> list[Finding]:
    candidates = find_near_pairs(tallies[second].hashes, tallies[first].hashes)
    chosen = [candidates[position] for position in choose_evenly(len(candidates), _MOST_VERIFIED)]

    def agree(position: int) -> bool:
        after, before = (
            reduce_to_grey(splits[split].image(index))
            for split, index in zip((second, first), chosen[position], strict=True)
        )
        return measure_agreement(after, before) >= AGREEMENT

    pairs = [pair for pair, same in zip(chosen, map_pairs(agree, len(chosen), None), strict=True) if same]
    if not pairs:
        return []
    count = round(len(pairs) * len(candidates) / len(chosen))
    files = [f"{second}/{splits[second].name(b)} ~ {first}/{splits[first].name(a)}" for b, a in pairs[:_NEAR_SHOWN]]
    about = "" if len(chosen) == len(candidates) else "about "
    message = f"{about}{count} images of {second} look like one of {first}: the score on {second} will be too high"
    return [Finding("warning", "near-duplicates across splits", message, files, "split by group: data.group_pattern")]


def find_sequences(splits: Mapping[str, SegmentationSplit], pattern: str | None) -> list[Finding]:
    """Return findings on sequences that splits share."""
    shared = find_shared_sequences({name: split.names for name, split in splits.items()}, pattern)
    lines = [
        f"{key}: " + ", ".join(f"{split} {count}" for split, count in counts.items()) for key, counts in shared.items()
    ]
    if not lines:
        return []
    touched = sorted({split for counts in shared.values() for split in counts if split != "train"})
    listed = "; ".join(lines[:5])
    message = (
        f"{len(shared)} sequences lie in more than one split ({listed}): scores on {', '.join(touched)} are too high"
    )
    fix = "where the splits are yours to make, set data.group_pattern"
    return [Finding("warning", "sequences across splits", message, lines[:NAMED], fix)]


def find_class_problems(tallies: Mapping[str, SplitTally], classes: ClassMap) -> list[Finding]:
    """Return findings on classes: absent from training or from every split, named like void, nearly alone."""
    findings = []
    for class_id, name in enumerate(classes.names):
        if name.lower() in VOID_WORDS:
            values = [raw for raw, target in classes.raw_to_class.items() if target == class_id]
            shown = ", ".join(str(unpack_color(value) if classes.legend else value) for value in values)
            message = f"class '{name}' (mask {'colour' if classes.legend else 'value'} {shown}) looks like void"
            findings.append(Finding("warning", "class named like void", message, [name], f"set data.void: [{name}]"))
    train = tallies.get("train")
    pixels = {split: tally.statistics.pixels for split, tally in tallies.items() if tally.pairs}
    if train is not None and train.pairs:
        absent = [name for name, count in zip(classes.names, pixels["train"], strict=False) if not count]
        held = [name for name in absent if any(counts[classes.names.index(name)] for counts in pixels.values())]
        if held:
            message = f"{len(held)} classes have no pixel in train, but in another split"
            findings.append(Finding("warning", "class absent", message, held))
    lines = describe_odd_shares(classes, pixels) if pixels else []
    return findings + [Finding("warning", "odd shares", line) for line in lines]


def find_misread_masks(splits: Mapping[str, SegmentationSplit], tallies: Mapping[str, SplitTally]) -> list[Finding]:
    """Return findings on masks that mean something else than they are read as: those that the check before training
    refuses.
    """
    findings = []
    for split, tally in tallies.items():
        if "unreadable" in tally.problems or tally.outside:
            continue
        for kind, error in find_misreadings(splits[split], tally.statistics.pixels):
            findings.append(Finding("error", kind, describe_mistake(error), fix=error.fix))
    problem = find_presumed_names(splits, {split: tally.statistics.pixels for split, tally in tallies.items()})
    if problem is not None:
        findings.append(Finding("error", "names of a benchmark", describe_mistake(problem), fix=problem.fix))
    return findings


def describe_mistake(error: InputError) -> str:
    """Return an error's message on one line, without its fix, which a finding has a line for."""
    parts = [
        error.what,
        *(f"{key}: {value}" for key in ("found", "allowed") if (value := getattr(error, key)) is not None),
    ]
    return "; ".join(str(part).replace("\n ", ";") for part in parts)
