"""Choose the thresholds of classes on a split: what `segplus thresholds` runs."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from segplus.commands.chosen_decision import name_recipe, read_chosen_decision
from segplus.commands.chosen_sections import read_sections
from segplus.data import SegmentationSplit
from segplus.errors import InputError, suggest
from segplus.files import place_outputs, prepare_folder
from segplus.inference.checkpoint import choose_device
from segplus.inference.decision_file import DECISION_FILE, Changes, write_decision
from segplus.inference.ensemble import Ensemble, find_ensemble, list_ensemble_files
from segplus.inference.evaluation_data import DataSource, list_input_files, name_data, open_split
from segplus.inference.prediction_files import write_table
from segplus.inference.scoring import iterate_split, join_processes, merge_processes
from segplus.inference.threshold_curves import Curve, ThresholdCounts, find_threshold, list_rows
from segplus.models.model_configs import expand_checkpoint
from segplus.recipe import DecisionRecipe, EvaluationRecipe
from segplus.reporting.metrics_file import refuse_foreign_results
from segplus.reporting.threshold_page import write_threshold_page

_RULES = {
    "recall": "The highest threshold whose recall is at least {:g}",
    "f_beta": "The threshold with the best F score, beta {:g}",
    "cost": "The threshold of the least cost, a miss as {:g} false alarms",
}


def choose_thresholds(
    checkpoint: str | Sequence[str],
    data: DataSource,
    output: str | Path,
    classes: Sequence[str],
    rule: str,
    value: float,
    *,
    by: str = "pixels",
    recipe: EvaluationRecipe | None = None,
    decision: DecisionRecipe | Changes | None = None,
    split: str | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> DecisionRecipe:
    """Choose thresholds on a split, and write them into the checkpoints and the folder of the results.

    The folder gets `thresholds.csv` (precision, recall and counts of every threshold), `thresholds.html` (the curves)
    and `segplus_decision.json`, which also goes into each checkpoint that is a folder.

    Args:
        checkpoint: Folder or Hub id; several, or a folder of folds, are an ensemble.
        data: The data, a recipe's data section, or the folder or Hub id of a data set.
        output: Folder of the results.
        classes: Names of the classes that get thresholds.
        rule: `recall`, `f_beta` or `cost`; see `find_threshold`.
        value: Of the rule.
        by: `pixels` or `objects`: what the rule counts.
        recipe: Protocol, and the overlap from which an object counts as found.
        decision: What the thresholds are added to; by default what is stored with the checkpoint.
        split: Which split; by default validation, or else test, or else train.
        device: Where to run.
        trust_remote_code: Run the model code that lies in a checkpoint.
        progress: Show a progress bar.
    Returns:
        The decision that was written.
    Raises:
        InputError: If a checkpoint or the data cannot be used, a class does not exist, is not in the split, or no
            threshold meets the rule.
    """
    recipe = recipe or EvaluationRecipe()
    state, output = join_processes(), Path(output)
    sources = [checkpoint] if isinstance(checkpoint, str) else list(checkpoint)
    inputs: list[str | Path] = [*list_input_files(data), *list_ensemble_files(sources)]
    files = place_outputs(output, [DECISION_FILE, "thresholds.csv", "thresholds.html"], "", inputs)
    with state.main_process_first():
        found = find_ensemble(sources, decision, trust_remote_code=trust_remote_code)
    refuse_classes(classes, found)
    loaded, split_name, chosen = open_split(
        found.members, data, split, progress=progress, preferred=("validation", "test", "train")
    )
    with state.main_process_first():
        refuse_foreign_results(files, "thresholds")
        prepare_folder(output)
    predictor = found.load(recipe.protocol, choose_device(device, state.local_process_index))
    class_ids = [found.class_names.index(name) for name in classes]
    counts = ThresholdCounts(predictor, class_ids, loaded.classes.ignore_index, recipe.object_overlap)
    counts = count_split(counts, chosen, split_name, progress)
    curves = {name: counts.draw(class_id) for name, class_id in zip(classes, class_ids, strict=True)}
    thresholds, reached = apply_rule({name: kinds[by] for name, kinds in curves.items()}, rule, value, split_name)
    facts = {
        "rule": _RULES[rule].format(value) + f", by {by}.",
        "split": split_name,
        "images": len(chosen),
        "dataset": name_data(data),
        "protocol": recipe.protocol.describe(),
        "reached": reached,
        "thresholds": thresholds,
    }
    made = dataclasses.replace(found.decision, thresholds=found.decision.thresholds | thresholds, chosen_on=facts)
    if state.is_main_process:
        _write_results(files, found, made, list_rows(curves))
    state.wait_for_everyone()
    return made


def refuse_classes(classes: Sequence[str], found: Ensemble) -> None:
    """Refuse to choose a threshold of a class that there is not, or of the fallback.

    Raises:
        InputError: If so.
    """
    for name in classes:
        if name not in found.class_names:
            raise InputError(f"--for: no class '{name}'", fix=suggest(name, found.class_names))
        if name == found.decision.fallback:
            raise InputError(f"--for {name}: it is the fallback, which has no threshold", fix="name another --fallback")


def count_split(counts: ThresholdCounts, split: SegmentationSplit, title: str, progress: bool) -> ThresholdCounts:
    """Return the counts of a whole split, of all processes together; `counts` holds none yet."""
    device = counts.predictor.model.device
    for _, pair, label in iterate_split(split, title, progress=progress):
        counts.update(pair["image"], label.to(device))
    first, *others = merge_processes(_leave_out_model(counts))
    for other in others:
        first.merge(other)
    return first


def _leave_out_model(counts: ThresholdCounts) -> ThresholdCounts:
    """Return the counts without the model, which no other process needs."""
    alone = ThresholdCounts.__new__(ThresholdCounts)
    alone.class_ids, alone.pixels, alone.objects = counts.class_ids, counts.pixels, counts.objects
    return alone


def apply_rule(
    curves: Mapping[str, Curve], rule: str, value: float, split: str
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return the threshold that a rule chooses for each class, and what it reaches.

    Raises:
        InputError: If no threshold of a class meets the rule.
    """
    thresholds, reached = {}, {}
    for name, curve in curves.items():
        position = find_threshold(curve, rule, value)
        if position is None:
            raise _explain_none(name, split, curve.hits + curve.missed, rule, value)
        thresholds[name] = float(curve.thresholds[position])
        reached[name] = curve.describe(position)
    return thresholds, reached


def _write_results(
    files: Sequence[Path], found: Ensemble, made: DecisionRecipe, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write table and page, and the decision beside them and into each checkpoint that is a folder."""
    write_table(files[1], rows)
    write_threshold_page(files[2], {"model": found.source, **made.chosen_on}, rows)
    folders = [Path(member.source) for member in found.members if Path(member.source).is_dir()]
    for path in [*(folder / DECISION_FILE for folder in folders), files[0]]:
        write_decision(path, made)


def place_results(checkpoints: Sequence[str]) -> Path:
    """Return the folder of the results where none is named: in the checkpoint's own, or one named after them."""
    folder = Path(expand_checkpoint(checkpoints[0]))
    if len(checkpoints) == 1 and folder.is_dir():
        return folder / "thresholds"
    return Path("runs/thresholds") / "+".join("-".join(Path(one).parts).strip("./-") for one in checkpoints)


def _explain_none(name: str, split: str, there: Any, rule: str, value: float) -> InputError:
    if not there.any():
        return InputError(
            f"thresholds: the split '{split}' holds nothing of the class '{name}'", fix="name another split: --split"
        )
    return InputError(
        f"thresholds: no threshold of '{name}' meets the rule",
        found=f"{rule} {value:g}",
        fix="ask for less, or train the class further",
    )


def read_rule(options: argparse.Namespace) -> tuple[str, float]:
    """Return the rule of a command line and its value.

    Raises:
        InputError: If the value means nothing.
    """
    given = {"recall": options.recall, "f_beta": options.f_beta, "cost": options.cost}
    rule, value = next((rule, value) for rule, value in given.items() if value is not None)
    if not 0 < value < 1e9 or (rule == "recall" and value > 1):
        allowed = "above 0, up to 1" if rule == "recall" else "above 0"
        raise InputError(f"--{rule.replace('_', '-')}", found=value, allowed=allowed)
    return rule, value


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Choose thresholds and print what they reach."""
    section, recipe = read_sections(
        "thresholds", options.data, options.recipe, options.checkpoint[0], options.protocol, rest
    )
    rule, value = read_rule(options)
    output = place_results(options.checkpoint) if options.output is None else Path(options.output)
    made = choose_thresholds(
        options.checkpoint,
        section,
        output,
        options.classes,
        rule,
        value,
        by=options.by,
        recipe=recipe,
        decision=read_chosen_decision(options, rest, name_recipe(options.data, options.recipe)),
        split=options.split,
        trust_remote_code=options.trust_remote_code,
    )
    if join_processes().is_main_process:
        for name, figures in made.chosen_on["reached"].items():
            print(
                f"{name}: from {made.thresholds[name]:g} on, by {options.by}: recall {100 * figures['recall']:.2f} %, "
                f"precision {100 * figures['precision']:.2f} %; {figures['missed']:.0f} missed, "
                f"{figures['false']:.0f} false"
            )
        print(f"curves and table lie in {output}; the checkpoint holds {DECISION_FILE}, which every verb applies")
    return 0
