"""Export a checkpoint to a folder that runs without segplus and transformers: what `segplus export` runs."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segplus.commands.chosen_sections import read_sections
from segplus.commands.predict import read_classes
from segplus.data import SegmentationData, SegmentationSplit
from segplus.errors import InputError
from segplus.export.folder import (
    describe_decision,
    format_cost,
    format_parity,
    list_left_out,
    name_scores,
    refuse_foreign_folder,
    write_facts,
    write_guide,
)
from segplus.export.graphs import FORMATS, ExportTask, check_format, choose_places
from segplus.export.latency import measure_graph
from segplus.export.parity import MOST_SCORE_DIFFERENCE, choose_evenly, compare_graphs
from segplus.export.preprocessing import (
    describe_preprocessing,
    find_example_size,
    find_fixed_size,
    parse_size,
    refuse_odd_sizes,
    refuse_uncut_sizes,
    set_size,
)
from segplus.export.runner import Network, make_pixel_values
from segplus.export.tracing import Captured, capture_program
from segplus.files import write_whole_folder
from segplus.inference.checkpoint import Checkpoint, find_checkpoint
from segplus.inference.evaluation_data import DataSource, open_split
from segplus.inference.predictor import Predictor
from segplus.models.library_failures import quiet_transformers
from segplus.recipe import EvaluationRecipe, PostprocessRecipe
from segplus.reporting.environment import describe_machine, list_versions


def export(
    checkpoint: str,
    output: str | Path,
    *,
    export_format: str = "onnx",
    size: str | None = None,
    preprocessing: str = "both",
    quantize: str | None = None,
    calibration_images: int = 100,
    data: DataSource | None = None,
    recipe: EvaluationRecipe | None = None,
    split: str | None = None,
    parity_images: int | None = None,
    timed_runs: int = 20,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Write a checkpoint's graphs, segplus_export.json, run.py and a README into a folder, whole or not at all.

    Args:
        checkpoint: Folder or Hub id of any semantic-segmentation model.
        output: The folder; an older export in its place is replaced.
        export_format: `onnx`, `openvino` or `torch_export`.
        size: `dynamic`, or one size such as `512x1024` (height x width) to which every image is resized; by default the
            image processor's own size, and dynamic where it has none.
        preprocessing: `beside` the graph, `inside` it, or `both`.
        quantize: `static` or `dynamic` writes 8-bit graphs as well.
        calibration_images: Training images that a static quantisation is calibrated on.
        data: Where parity and mIoU are measured, and a calibration finds its images; None draws images for the parity.
        recipe: How the intervals of mIoU are drawn.
        split: Of the data; by default test, or else validation, or else train.
        parity_images: Only so many images of the split, evenly spread.
        timed_runs: How often each graph is timed; 0 leaves the times out.
        trust_remote_code: Run the model code that lies in the checkpoint.
        progress: Show a progress bar.
    Returns:
        What segplus_export.json holds.
    Raises:
        InputError: If the checkpoint cannot be loaded or exported so, packages are missing, the folder holds something
            else, or a float32 graph does not give the model's scores.
    """
    folder = Path(output)
    check_format(export_format, quantize, preprocessing)
    refuse_foreign_folder(folder)
    refuse_counts(parity_images=parity_images, calibration_images=calibration_images, timed_runs=timed_runs)
    if quantize == "static" and data is None:
        raise InputError("export: --quantize static is calibrated on training images", fix="name them: --data DATA")
    found = find_checkpoint(checkpoint, trust_remote_code=trust_remote_code)
    size_px, is_dynamic = parse_size(size)
    processor = set_size(found.image_processor, size_px)
    known = describe_preprocessing(processor, found.channels)
    refuse_uncut_sizes(found.config, known, is_dynamic=is_dynamic)
    places, left_out = choose_places(export_format, preprocessing, known)
    loaded, chosen = None, None
    if data is not None:
        loaded, _, chosen = open_split([found], data, split, progress=progress)
    predictor = load_for_export(found, processor)
    captured = capture_served(predictor, known, is_dynamic=is_dynamic)
    served = serve_calibration(loaded, known, calibration_images) if quantize == "static" else []
    with write_whole_folder(folder) as temporary:
        task = ExportTask(
            captured.program, known, len(found.class_names), describe_decision(found), places, quantize, served
        )
        graphs = FORMATS[export_format][0](task, temporary)
        facts = {"format": export_format, "graphs": graphs, "calibration_images": len(served)}
        facts |= describe_export(found, known, captured) | {"not_in_the_graph": [*left_out, *list_left_out(found)]}
        write_facts(temporary, facts)
        networks = {name: Network(temporary, name) for name in graphs}
        evaluation = recipe or EvaluationRecipe()
        facts["parity"] = compare_graphs(
            predictor, networks, chosen, evaluation, images=parity_images, progress=progress
        )
        refuse_other_model(facts)
        facts["cost"] = measure_costs(temporary, found, predictor, facts, timed_runs)
        write_facts(temporary, facts)
        write_guide(temporary, facts)
    return facts


def capture_served(predictor: Predictor, known: dict[str, Any], *, is_dynamic: bool) -> Captured:
    """Return the network's program for the sizes that the preprocessing gives, or for any that it can take.

    Raises:
        InputError: If the model cannot take them, or cannot be exported.
    """
    size_px, channels = find_example_size(known), known["channels"]
    predictor.try_image(np.zeros((*size_px, channels), np.uint8))
    has_dynamic_size = is_dynamic or find_fixed_size(known) is None
    captured = capture_program(predictor.model, channels, size_px, has_dynamic_size=has_dynamic_size)
    refuse_odd_sizes(captured.size_multiple, known)
    return captured


def describe_export(found: Checkpoint, known: dict[str, Any], captured: Captured) -> dict[str, Any]:
    """Return what segplus_export.json says of the model, its classes and its inputs."""
    classes = read_classes(found)
    return {
        "checkpoint": Path(found.source).name if Path(found.source).is_dir() else found.source,
        "class_names": list(classes.names),
        "class_colors": list(classes.colors),
        "scores": name_scores(found),
        "decision": describe_decision(found),
        "preprocessing": known,
        "size_px": None if captured.size_multiple else find_fixed_size(known),
        "size_multiple": captured.size_multiple,
        "has_dynamic_batch": captured.has_dynamic_batch,
        "measured_at_px": find_example_size(known),
        "environment": {**describe_machine(), "versions": list_versions()},
    }


def refuse_counts(*, parity_images: int | None, calibration_images: int, timed_runs: int) -> None:
    """Refuse numbers of images or runs that measure nothing.

    Raises:
        InputError: If so.
    """
    given = {
        "parity-images": (parity_images, 1),
        "calibration-images": (calibration_images, 1),
        "timed-runs": (timed_runs, 0),
    }
    for name, (count, least) in given.items():
        if count is not None and count < least:
            raise InputError(f"export: --{name}", found=count, allowed=f"{least} and more")


def load_for_export(found: Checkpoint, processor: Any) -> Predictor:
    """Return the model on the CPU in float32, with attention that exporters know, behind a processor.

    It decides as the graphs do: without the steps on the label map.
    """
    with quiet_transformers():
        model = found.load(device="cpu").model.float()
        if model.config._attn_implementation not in (None, "eager"):
            model.set_attn_implementation("eager")
    decision = dataclasses.replace(found.decision, postprocess=PostprocessRecipe())
    return Predictor(model, processor, None, "cpu", found.channels, decision=decision, class_names=found.class_names)


def serve_calibration(data: SegmentationData | None, known: dict[str, Any], count: int) -> list[Any]:
    """Return the pixel values of training images, evenly spread.

    Raises:
        InputError: If the data have no training images.
    """
    split: SegmentationSplit | None = data.splits.get("train") if data is not None else None
    if split is None or not len(split):
        raise InputError(
            "export: --quantize static is calibrated on the split 'train'",
            found="no such split, or none of its images",
            fix="name a data set that has one",
        )
    return [make_pixel_values(np.asarray(split[i]["image"]), known) for i in choose_evenly(len(split), count)]


def refuse_other_model(facts: dict[str, Any]) -> None:
    """Refuse to write a float32 graph whose scores are not the model's.

    Raises:
        InputError: If so.
    """
    for name, graph in facts["graphs"].items():
        difference = facts["parity"][name]["score_difference"]
        is_exact = graph["precision"] == "float32" and graph["preprocessing"] == "beside"
        if is_exact and not difference <= MOST_SCORE_DIFFERENCE:
            raise InputError(
                f"export: {name} does not give the model's scores, so nothing was written",
                found=f"largest difference {difference:.1e} of the largest score",
                allowed=f"up to {MOST_SCORE_DIFFERENCE:g}",
                fix="choose another format or one size, and report the model",
            )


def measure_costs(
    folder: Path, found: Checkpoint, predictor: Predictor, facts: dict[str, Any], runs: int
) -> dict[str, dict[str, float]]:
    """Return file_mib and the times and memory of the checkpoint ("torch") and of each graph; nothing for no runs."""
    if not runs:
        return {}
    size_px = facts["measured_at_px"]
    cost: dict[str, dict[str, float]] = {}
    if not found.trust_remote_code:  # the process that measures it would run a stranger's code
        weights = sum(one.numel() * one.element_size() for one in predictor.model.state_dict().values())
        cost["torch"] = {"file_mib": weights / 2**20, **measure_graph(folder, None, size_px, runs, found.source)}
    for name, graph in facts["graphs"].items():
        cost[name] = {"file_mib": graph["bytes"] / 2**20, **measure_graph(folder, name, size_px, runs)}
    return cost


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Export a checkpoint; print parity, cost and what the graph does not hold."""
    section, recipe = None, None
    if options.data is not None or rest:
        section, recipe = read_sections("export", options.data, options.recipe, options.checkpoint, None, rest)
    facts = export(
        options.checkpoint,
        options.output,
        export_format=options.format,
        size=options.size,
        preprocessing=options.preprocessing,
        quantize=options.quantize,
        calibration_images=options.calibration_images,
        data=section if options.data is not None else None,
        recipe=recipe,
        split=options.split,
        parity_images=options.parity_images,
        timed_runs=options.timed_runs,
        trust_remote_code=options.trust_remote_code,
    )
    print("\n".join(format_parity(facts["parity"])))
    if facts["cost"]:
        print("\n".join(["", *format_cost(facts["cost"], facts["measured_at_px"])]))
    for line in facts["not_in_the_graph"]:
        print(f"not in the graph: {line}")
    print(f"\n{', '.join(facts['graphs'])}, run.py and README.md lie in {options.output}")
    return 0
