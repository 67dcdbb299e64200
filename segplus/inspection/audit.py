"""The data doctor: every pair read once, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from segplus.classes import ClassMap
from segplus.data.dataset import SegmentationSplit
from segplus.data.decoding.masks import MaskDecoder
from segplus.data.layouts.names import NoClassNamesError
from segplus.data.layouts.source import Source
from segplus.data.loading import SegmentationData, assemble, build_section, load_segmentation_dataset, read_source
from segplus.data.parallel import map_pairs
from segplus.errors import InputError
from segplus.inspection.findings import (
    Finding,
    find_class_problems,
    find_misplaced_masks,
    find_misread_masks,
    find_pair_problems,
    find_repeated_images,
    find_sequences,
)
from segplus.inspection.measurements import measure_pair
from segplus.inspection.proposals import measure_shares, propose_recipe, render_recipe, weigh_by_frequency
from segplus.inspection.tallies import SplitTally
from segplus.recipe.data_section import DataRecipe

_MOST_UNNAMED = 4096


@dataclass
class Audit:
    """An inspected data set.

    Args:
        report: What was found, JSON-ready.
        data: The splits, None where they could not be opened.
        tallies: Split name -> sums.
    """

    report: dict[str, Any]
    data: SegmentationData | None = None
    tallies: dict[str, SplitTally] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """1 when something would break training, otherwise 0."""
        return int(any(finding["level"] == "error" for finding in self.report["findings"]))


def inspect_dataset(section: DataRecipe | Mapping[str, Any], *, progress: bool = True) -> Audit:
    """Return what a data section's pairs hold and what is wrong with them; a mistake becomes a finding.

    Args:
        section: The recipe's data section.
        progress: Show a progress bar a split.
    Raises:
        InputError: If the section itself has an unknown key or value.
    """
    recipe = build_section(section)
    findings: list[Finding] = []
    try:
        data, named = open_tolerantly(recipe, findings, progress)
    except InputError as error:
        findings.append(Finding("error", "cannot be opened", str(error).replace("\n ", ";"), fix=error.fix))
        return Audit(build_report(recipe, None, {}, findings, named=True))
    tallies = {name: tally_split(split, data.classes, progress) for name, split in data.splits.items()}
    findings += find_pair_problems(tallies, data.classes)
    findings += find_class_problems(tallies, data.classes)
    findings += find_misread_masks(data.splits, tallies)
    findings += find_misplaced_masks(tallies)
    findings += find_repeated_images(data.splits, tallies)
    findings += find_sequences(data.splits, recipe.group_pattern)
    findings.sort(key=lambda finding: ("error", "warning", "note").index(finding.level))
    return Audit(build_report(recipe, data, tallies, findings, named), data, tallies)


def tally_split(split: SegmentationSplit, classes: ClassMap, progress: bool) -> SplitTally:
    """Return the sums over a split's pairs, read in parallel."""
    tally = SplitTally(classes.num_classes)
    tolerant = replace(classes, unknown="ignore")
    title = f"inspect {split.title}" if progress else None
    for index, facts in enumerate(map_pairs(partial(measure_pair, split, tolerant=tolerant), len(split), title)):
        tally.add(index, facts, split.sources(index))
    return tally


def open_tolerantly(recipe: DataRecipe, findings: list[Finding], progress: bool) -> tuple[SegmentationData, bool]:
    """Return the splits, and whether the classes have names; orphans and missing names become findings.

    Raises:
        InputError: If the data cannot be opened at all.
    """
    if recipe.dataset == "synthetic" or recipe.layout == "synthetic":
        return load_segmentation_dataset(recipe), True
    if recipe.streams_training:
        raise InputError(
            "data.streaming: inspect reads every pair, and a stream is never read whole",
            fix="set data.max_images: {train: 500} to inspect the first ones, or data.streaming: false",
        )
    source = read_source(recipe)
    for sentence, files in zip(
        source.describe_orphans(), filter(None, (source.images_alone, source.masks_alone)), strict=True
    ):
        findings.append(Finding("error", "orphans", sentence, files[:20], "add or remove the files"))
    recipe = replace(recipe, stratify=False)  # it reads masks that may be damaged
    try:
        return assemble(source, recipe), True
    except NoClassNamesError as error:
        findings.append(Finding("error", "no class names", error.what, fix=error.fix))
        return assemble(source, replace(recipe, classes=list_values(source, recipe, progress))), False


def list_values(source: Source, recipe: DataRecipe, progress: bool) -> dict[int, str]:
    """Return mask value -> a stand-in name, of the values that occur.

    Raises:
        InputError: If there are more than a person could have meant.
    """
    whole = assemble(source, replace(recipe, classes=["unnamed"], unknown="ignore", void=[], merge={}))
    values: set[int] = set()
    for split in whole.splits.values():
        for found in map_pairs(
            partial(_find_values, split), len(split), f"values of {split.title}" if progress else None
        ):
            values |= found
            if len(values) > _MOST_UNNAMED:
                raise InputError(
                    "masks hold thousands of values", found=len(values), fix="set data.encoding, see docs/data.md"
                )
    return {value: f"value {value}" for value in sorted(values - {255})} or {0: "value 0"}


def _find_values(split: SegmentationSplit, index: int) -> set[int]:
    try:
        return {int(value) for value in np.unique(split.raw_label(index))}
    except InputError:
        return set()  # it is reported when the pair is measured


def build_report(
    recipe: DataRecipe,
    data: SegmentationData | None,
    tallies: Mapping[str, SplitTally],
    findings: list[Finding],
    named: bool,
) -> dict[str, Any]:
    """Return the JSON-ready report."""
    report: dict[str, Any] = {
        "dataset": recipe.dataset,
        "found": list(data.found) if data else [],
        "class_names": list(data.classes.names) if data else [],
        "encoding": describe_encoding(data),
        "splits": {name: tally.describe(data.classes.names) for name, tally in tallies.items()} if data else {},
        "findings": [finding.describe() for finding in findings],
    }
    train = tallies.get("train")
    if data is not None and train is not None and train.pairs:
        shares = measure_shares(train)
        report["class_frequencies"] = dict(zip(data.classes.names, (round(float(s), 8) for s in shares), strict=True))
        report["class_weights"] = {
            formula: dict(zip(data.classes.names, weights, strict=True))
            for formula, weights in weigh_by_frequency(train).items()
        }
        report["recipe"] = render_recipe(propose_recipe(recipe, data.splits["train"].decoder, tallies, named))
    return report


def describe_encoding(data: SegmentationData | None) -> str:
    """Return how the masks were read."""
    if data is None or not data.splits:
        return "unknown"
    decoder: MaskDecoder = next(iter(data.splits.values())).decoder
    return decoder.encoding
