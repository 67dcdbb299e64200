"""The data doctor: every pair read once, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from segplus.data.dataset import SegmentationSplit, name_source
from segplus.data.decoding.image_reader import count_image_channels
from segplus.data.layouts.names import NoClassNamesError
from segplus.data.layouts.source import OpenChoiceError, Source, find_split
from segplus.data.layouts.words import shows_nothing
from segplus.data.loading import SegmentationData, assemble, build_section, load_segmentation_dataset, read_source
from segplus.data.ranges import find_needed_range
from segplus.data.statistics import keep_counts, visit_pairs
from segplus.errors import InputError
from segplus.inspection.findings import (
    LEVELS,
    Finding,
    describe_mistake,
    find_class_problems,
    find_misplaced_masks,
    find_misread_masks,
    find_pair_problems,
    find_repeated_images,
    find_sequences,
)
from segplus.inspection.groups import Grouping, propose_grouping
from segplus.inspection.measurements import measure_pair
from segplus.inspection.proposals import (
    list_changed_keys,
    measure_shares,
    propose_recipe,
    propose_stratify,
    render_recipe,
    weigh_by_frequency,
)
from segplus.inspection.readings import Reading, guess_reading, read_stated_names
from segplus.inspection.tallies import SplitTally
from segplus.recipe.data_section import DataRecipe

# Findings that another reading of the masks may mend.
_MENDABLE = frozenset(
    {
        "binary masks read as ids", "foreground below the threshold", "threshold between values", "no instances",
        "palettes that differ", "names of a benchmark", "outside the classes", "unreadable",
    }
)  # fmt: skip


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
        source, recipe, asked = open_source(recipe, findings)
        recipe = recipe if source is None else state_channels(recipe, source, findings)
        reading = read_tolerantly(source, recipe, findings, progress)
        if source is not None:
            reading = state_range(reading, source, findings)
    except InputError as error:
        findings.append(Finding("error", "cannot be opened", describe_mistake(error), fix=error.fix))
        return Audit(build_report(recipe, None, {}, findings))
    data = reading.data
    tallies = {name: tally_split(split, progress) for name, split in data.splits.items()}
    findings += find_pair_problems(tallies, data.classes, recipe.channels)
    findings += find_class_problems(tallies, data.classes)
    findings += find_misread_masks(data.splits, tallies)
    findings += find_misplaced_masks(tallies)
    findings += find_repeated_images(data.splits, tallies)
    grouping = find_grouping(data, tallies, recipe)
    findings += find_sequences(data.splits, recipe.group_pattern or (grouping and grouping.pattern))
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    report = build_report(recipe, data, tallies, findings)
    mended, counted = reading, tallies
    if source is not None and reading.guess is None and any(finding.kind in _MENDABLE for finding in findings):
        mended, counted = mend_reading(source, reading, tallies, progress)
    if counted["train"].pairs:
        report |= describe_proposal(mended, counted, source, grouping, asked)
    return Audit(report, data, tallies)


def state_channels(recipe: DataRecipe, source: Source, findings: list[Finding]) -> DataRecipe:
    """Return the section with the number of channels of the images, where these are no pictures and it says nothing."""
    if recipe.channels != 3:
        return recipe
    firsts = [rows[0] for rows in source.splits.values() if len(rows)]
    with suppress(InputError):  # it is reported when every pair is read
        counts = {count_image_channels(row["image"], name_source(row["image"], row["name"])) for row in firsts}
        if len(counts) == 1 and 3 not in counts:
            message = f"images of {min(counts)} channels, and data.channels is 3"
            findings.append(Finding("error", "other channels", message, fix=f"set data.channels: {min(counts)}"))
            return replace(recipe, channels=min(counts))
    return recipe


def state_range(reading: Reading, source: Source, findings: list[Finding]) -> Reading:
    """Return the data with the range that their images have, where these cannot be read without one.

    Raises:
        InputError: If one of these images cannot be read.
    """
    found = find_needed_range(reading.data.splits.values())
    if found is None:
        return reading
    low, high = found[0], found[1] if found[1] > found[0] else found[0] + 1
    message = f"images of values {low:g} to {high:g}, and nothing says which become 0 and 255"
    fix = f"set data.image_range: [{low:g}, {high:g}], the values that become 0 and 255 in every image"
    findings.append(Finding("error", "no range", message, fix=fix))
    section = replace(reading.section, image_range=[low, high])
    return replace(reading, section=section, data=assemble(source, replace(section, stratify=False)))


def mend_reading(
    source: Source, reading: Reading, tallies: dict[str, SplitTally], progress: bool
) -> tuple[Reading, dict[str, SplitTally]]:
    """Return a guess at masks that cannot be read as the recipe says, and what the splits hold then."""
    try:
        guessed = guess_reading(source, reading.section, progress)
    except InputError:
        return reading, tallies  # the findings stand, and no recipe passes the checks
    if guessed is None:
        return reading, tallies
    return guessed, {name: tally_split(split, progress) for name, split in guessed.data.splits.items()}


def describe_proposal(
    reading: Reading,
    tallies: Mapping[str, SplitTally],
    source: Source | None,
    grouping: Grouping | None,
    asked: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the recipe that fits, why it is so, and the questions it leaves open; JSON-ready."""
    settled = source.settled if source is not None else {}
    keys = list_changed_keys(reading.section)
    data = {"dataset": keys["dataset"], **settled, **keys}
    names = [name for split in reading.data.splits.values() for name in split.names]
    reasons = [f"masks: {reading.guess.reason}"] if reading.guess else []
    if makes_splits(source, reading.section):
        if grouping is not None and reading.section.group_pattern is None:
            data["group_pattern"] = grouping.pattern
            reasons.append(f"group_pattern: {grouping.groups} groups, each a {grouping.what}, stay whole")
        elif not reading.section.stratify and (why := propose_stratify(tallies)):
            data["stratify"] = True
            reasons.append(why)
    recipe, more = propose_recipe(data, reading.data.classes, tallies, names)
    shares = reading.guess.shares if reading.guess else {}
    questions = [*asked, reading.guess.question if reading.guess else ""]
    question = ". And ".join(filter(None, questions))
    return {"recipe": render_recipe(recipe, shares), "reasons": reasons + more, "question": question}


def makes_splits(source: Source | None, section: DataRecipe) -> bool:
    """Return whether a split is drawn from the training images, and whole groups can be kept in one."""
    if source is None:
        return False
    found = find_split(list(source.splits), "validation", section.validation_split)
    return section.folds > 0 or len(source.splits) == 1 or found is None


def find_grouping(data: SegmentationData, tallies: Mapping[str, SplitTally], recipe: DataRecipe) -> Grouping | None:
    """Return the groups that names show, over all splits, in the order of the names."""
    if recipe.group_pattern is not None:
        return None
    pairs = [
        (name, hash_)
        for split, tally in tallies.items()
        for name, hash_ in zip(data.splits[split].names, tally.hashes, strict=True)
    ]
    pairs.sort()
    return propose_grouping([name for name, _ in pairs], [hash_ for _, hash_ in pairs])


def tally_split(split: SegmentationSplit, progress: bool) -> SplitTally:
    """Return the sums over a split's pairs, each of which is visited once: what is counted is kept for training."""
    tally = SplitTally(split.classes.num_classes)
    title = f"inspect {split.title}" if progress else None
    for index, visit in enumerate(visit_pairs(split, title, look=partial(measure_pair, split))):
        tally.add(index, visit, split.sources(index))
    if not tally.refused:
        with suppress(InputError):  # a cache that cannot be written to: training says so
            keep_counts(split, tally.statistics.counts)
    return tally


def open_source(recipe: DataRecipe, findings: list[Finding]) -> tuple[Source | None, DataRecipe, list[str]]:
    """Return the pairs of a data set, None where they are drawn, the section that reads them, and open questions.

    Files without a partner become findings. Where the folder leaves a choice, one is made and asked about.

    Raises:
        InputError: If the data cannot be opened.
    """
    if recipe.dataset == "synthetic" or recipe.layout == "synthetic":
        return None, recipe, []
    if recipe.streams_training:
        raise InputError(
            "data.streaming: inspect reads every pair, and a stream is never read whole",
            fix="set data.max_images: {train: 500} to inspect the first ones, or data.streaming: false",
        )
    source, chosen, asked = _read_choosing(recipe)
    names = read_stated_names(source, chosen) if chosen.unmasked != recipe.unmasked else {}
    if names and shows_nothing(names[min(names)]):
        chosen = replace(chosen, unmasked=names[min(names)])
    for sentence, files in zip(
        source.describe_orphans(), filter(None, (source.images_alone, source.masks_alone)), strict=True
    ):
        fix = "add or remove the files, or set data.unmasked (docs/data.md)"
        findings.append(Finding("error", "orphans", sentence, files[:20], fix))
    return source, chosen, asked


def _read_choosing(recipe: DataRecipe) -> tuple[Source, DataRecipe, list[str]]:
    try:
        return read_source(recipe), recipe, []
    except OpenChoiceError as choice:
        if not choice.keys or any(vars(recipe)[key] not in (None, "auto", recipe.dataset) for key in choice.keys):
            raise
        try:
            source, chosen, asked = _read_choosing(replace(recipe, **choice.keys))
        except InputError:
            raise choice from None
        return source, chosen, [choice.question, *asked]


def read_tolerantly(source: Source | None, recipe: DataRecipe, findings: list[Finding], progress: bool) -> Reading:
    """Return the splits as the recipe reads them; where it does not say how, that is a finding, and a guess does.

    Raises:
        InputError: If the data cannot be read, and nothing can be guessed.
    """
    if source is None:
        return Reading(load_segmentation_dataset(recipe), recipe)
    plain = replace(recipe, stratify=False)  # it reads masks that may be damaged
    if recipe.stratify:
        with suppress(InputError):
            return Reading(assemble(source, recipe), recipe)
    try:
        return Reading(assemble(source, plain), recipe)
    except InputError as error:
        guessed = guess_reading(source, plain, progress)
        if guessed is None:
            raise
        kind = "no class names" if isinstance(error, NoClassNamesError) else "cannot be read as stated"
        findings.append(Finding("error", kind, describe_mistake(error), fix=error.fix))
        return replace(guessed, section=replace(guessed.section, stratify=recipe.stratify))


def build_report(
    recipe: DataRecipe, data: SegmentationData | None, tallies: Mapping[str, SplitTally], findings: list[Finding]
) -> dict[str, Any]:
    """Return the JSON-ready report."""
    report: dict[str, Any] = {
        "dataset": recipe.dataset,
        "found": list(data.found) if data else [],
        "class_names": list(data.classes.names) if data else [],
        "encoding": next(iter(data.splits.values())).decoder.encoding if data and data.splits else "unknown",
        "splits": {name: tally.describe(data.classes.names) for name, tally in tallies.items()} if data else {},
        "findings": [asdict(finding) for finding in findings],
    }
    train = tallies.get("train")
    if data is not None and train is not None and train.pairs:
        shares = measure_shares(train)
        report["class_frequencies"] = dict(zip(data.classes.names, (round(float(s), 8) for s in shares), strict=True))
        report["class_weights"] = {
            formula: dict(zip(data.classes.names, weights, strict=True))
            for formula, weights in weigh_by_frequency(train).items()
        }
    return report
