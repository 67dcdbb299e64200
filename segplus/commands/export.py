"""Export a checkpoint to a folder that runs without segplus and transformers: what `segplus export` runs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segplus.commands.chosen_sections import read_sections
from segplus.commands.predict import read_classes
from segplus.data import SegmentationData, SegmentationSplit
from segplus.errors import InputError
from segplus.export.folder import (
    format_cost,
    format_parity,
    refuse_foreign_folder,
    write_facts,
    write_guide,
)
from segplus.export.graphs import FORMATS, ExportTask, check_format
from segplus.export.latency import measure_graph
from segplus.export.parity import MOST_SCORE_DIFFERENCE, choose_evenly, compare_graphs
from segplus.export.preprocessing import describe_preprocessing, set_size
from segplus.export.runner import Network, make_pixel_values
from segplus.export.tracing import capture_program
from segplus.files import write_whole_folder
from segplus.inference.checkpoint import Checkpoint, find_checkpoint
from segplus.inference.evaluation_data import DataSource, open_split
from segplus.inference.predictor import Predictor
from segplus.models.library_failures import quiet_transformers
from segplus.recipe import EvaluationRecipe
from segplus.reporting.environment import describe_machine, list_versions

_EXAMPLE_PX = (256, 320)  # that a network of any size is traced at, where the image processor names none


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
    places, left_out = choose_places(export_format, preprocessing, known)
    loaded, chosen = None, None
    if data is not None:
        loaded, _, chosen = open_split([found], data, split, progress=progress)
    fixed_px = find_fixed_size(known)
    with quiet_transformers():
        predictor = load_for_export(found, processor)
    example_px = fixed_px or find_example_size(known)
    predictor.try_image(np.zeros((*example_px, found.channels), np.uint8))
    captured = capture_program(
        predictor.model, found.channels, example_px, has_dynamic_size=is_dynamic or fixed_px is None
    )
    refuse_odd_sizes(captured.size_multiple, known)
    served = serve_calibration(loaded, known, calibration_images) if quantize == "static" else []
    classes = read_classes(found)
    with write_whole_folder(folder) as temporary:
        task = ExportTask(captured.program, known, classes.num_classes, places, quantize, served)
        graphs = FORMATS[export_format][0](task, temporary)
        facts: dict[str, Any] = {
            "format": export_format,
            "checkpoint": Path(found.source).name if Path(found.source).is_dir() else found.source,
            "class_names": list(classes.names),
            "class_colors": list(classes.colors),
            "preprocessing": known,
            "size_px": None if captured.size_multiple else fixed_px,
            "size_multiple": captured.size_multiple,
            "has_dynamic_batch": captured.has_dynamic_batch,
            "graphs": graphs,
            "calibration_images": len(served),
            "not_in_the_graph": [*left_out, *list_left_out(found)],
            "environment": {**describe_machine(), "versions": list_versions()},
        }
        write_facts(temporary, facts)
        networks = {name: Network(temporary, name) for name in graphs}
        facts["parity"] = compare_graphs(
            predictor, networks, chosen, recipe or EvaluationRecipe(), images=parity_images, progress=progress
        )
        refuse_other_model(facts)
        facts["measured_at_px"] = example_px
        facts["cost"] = measure_costs(temporary, found, predictor, facts, timed_runs)
        write_facts(temporary, facts)
        write_guide(temporary, facts)
    return facts


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


def parse_size(size: str | None) -> tuple[tuple[int, int] | None, bool]:
    """Return (height, width), None where none is stated, and whether any size is asked for.

    Raises:
        InputError: If it is neither `dynamic` nor two numbers.
    """
    if size is None or size == "dynamic":
        return None, size == "dynamic"
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if match is None or not all(int(side) for side in match.groups()):
        raise InputError("export: --size", found=size, allowed="dynamic, or height x width such as 512x1024")
    return (int(match[1]), int(match[2])), False


def find_fixed_size(known: dict[str, Any]) -> tuple[int, int] | None:
    """Return the (height, width) to which the preprocessing resizes every image, or None."""
    size = known["size"]
    return (size["height"], size["width"]) if size and "height" in size else None


def find_example_size(known: dict[str, Any]) -> tuple[int, int]:
    """Return a size that the preprocessing may give."""
    edge = (known["size"] or {}).get("shortest_edge")
    return (edge, edge * 4 // 3) if edge else _EXAMPLE_PX


def refuse_odd_sizes(multiple: int, known: dict[str, Any]) -> None:
    """Refuse a network of certain sizes alone behind a preprocessing that gives others.

    Raises:
        InputError: If so.
    """
    if multiple > 1 and find_fixed_size(known) is None:
        raise InputError(
            f"export: the network takes multiples of {multiple} pixels once it is exported, and images come otherwise",
            found=f"size of the image processor: {known['size']}",
            fix="give one size: --size 512x512 (height x width)",
        )


def choose_places(export_format: str, preprocessing: str, known: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return where the preprocessing goes, and what is told of it that a graph cannot hold.

    Raises:
        InputError: If it is asked for inside and cannot be there.
    """
    possible = FORMATS[export_format][3]
    wanted = list(possible) if preprocessing == "both" else [preprocessing]
    if "inside" not in wanted:
        told = (
            [] if preprocessing == "beside" else [f"preprocessing: {export_format} has it beside the graph, in run.py"]
        )
        return wanted, told
    from segplus.export.onnx_graph import can_hold

    reason = can_hold(known)
    if reason is None:
        return wanted, []
    if preprocessing == "inside":
        raise InputError(f"export: --preprocessing inside: {reason}", fix="use --preprocessing beside")
    return ["beside"], [f"preprocessing: {reason}; run.py does it beside the graph"]


def load_for_export(found: Checkpoint, processor: Any) -> Predictor:
    """Return the model on the CPU in float32, with attention that exporters know, behind a processor."""
    predictor = found.load(device="cpu")
    model = predictor.model.float()
    if model.config._attn_implementation not in (None, "eager"):
        model.set_attn_implementation("eager")
    return Predictor(model, processor, None, "cpu", found.channels)


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


def list_left_out(found: Checkpoint) -> list[str]:
    """Return what the checkpoint's folder says of predictions that no graph holds."""
    folder, told = Path(found.source), []
    if (folder / "segplus_decision.json").is_file():
        told.append("segplus_decision.json: thresholds; labels are the class of the highest score")
    if (folder / "recipe.yaml").is_file():
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")) or {}
        evaluation = recipe.get("evaluation") or {}
        protocol = (evaluation.get("protocol") or {}).get("name", "fixed")
        if protocol != "fixed":
            told.append(f"evaluation.protocol: {protocol}; the graph's protocol is fixed: one pass at the served size")
        if recipe.get("postprocess") or evaluation.get("postprocess"):
            told.append("postprocess: label maps come as the network gives them")
    return told


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
