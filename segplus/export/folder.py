"""The exported folder: graphs, segplus_export.json, run.py and a README, written whole or not at all."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segplus.errors import InputError
from segplus.export import runner
from segplus.files import write_text
from segplus.inference.checkpoint import Checkpoint
from segplus.inference.decisions import build_rule
from segplus.inference.label_maker import find_no_class
from segplus.models.mask_transformers import is_mask_transformer
from segplus.recipe import DecisionRecipe, PostprocessRecipe
from segplus.recipe.documents import read_document
from segplus.reporting.markdown import escape_text
from segplus.reporting.metrics_file import write_metrics

FACTS = "segplus_export.json"
_NEEDS = {"onnx": "onnxruntime", "openvino": "openvino", "torch_export": "torch"}


def refuse_foreign_folder(folder: Path) -> None:
    """Refuse to replace what no export wrote.

    Raises:
        InputError: If so.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder}: stands where the exported folder would", fix="name another folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / FACTS).is_file():
        raise InputError(
            f"{folder}: holds files that no export wrote, and would be replaced",
            found=f"no {FACTS}",
            fix="name another folder, or an empty one",
        )


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write segplus_export.json, which run.py reads."""
    write_metrics(folder / FACTS, facts)


def write_guide(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write run.py and README.md beside the graphs."""
    shutil.copyfile(runner.__file__, folder / "run.py")
    write_text(folder / "README.md", _format_readme(facts))


def _format_readme(facts: Mapping[str, Any]) -> str:
    names = ", ".join(f"{index} {escape_text(name)}" for index, name in enumerate(facts["class_names"]))
    lines = [
        f"# {facts['checkpoint']}, exported",
        "",
        "Label maps of images without segplus and transformers. They need "
        f"`pip install numpy pillow {_NEEDS[facts['format']]}`:",
        "",
        "```bash",
        "python run.py IMAGES OUT",
        "```",
        "",
        "IMAGES is an image or a folder, OUT gets a PNG of class ids of each image's own size. Classes: " + names + ".",
        "",
        "## Graphs",
        "",
        "The first one is what run.py takes; `--graph` names another.",
        "",
        "| file | inputs | preprocessing | precision | MiB |",
        "|---|---|---|---|---:|",
    ]
    for name, graph in facts["graphs"].items():
        inputs = ", ".join(f"`{one}`" for one in graph["inputs"])
        lines.append(
            f"| {name} | {inputs} | {graph['preprocessing']} | {graph['precision']} | {graph['bytes'] / 2**20:.1f} |"
        )
    lines += ["", *_describe_inputs(facts), "", "## Parity with the checkpoint", "", *format_parity(facts["parity"])]
    if facts["cost"]:
        lines += ["", "## Cost of one image", "", *format_cost(facts["cost"], facts["measured_at_px"])]
    floats = [graph for graph in facts["graphs"].values() if graph.get("float_operators")]
    if floats:
        listed = ", ".join(f"{count} {name}" for name, count in floats[0]["float_operators"].items())
        lines += ["", f"In float32 beside the 8-bit operators: {listed}."]
    if facts["not_in_the_graph"]:
        lines += ["", "## Not in the graph", "", *(f"- {line}" for line in facts["not_in_the_graph"])]
    return "\n".join(lines) + "\n"


def _describe_inputs(facts: Mapping[str, Any]) -> list[str]:
    channels, multiple = facts["preprocessing"]["channels"], facts["size_multiple"]
    size = "any size" if multiple == 1 else f"sides that are multiples of {multiple}"
    size = size if multiple else "{} x {} (height x width)".format(*facts["size_px"])
    batch = "batches of any size" if facts["has_dynamic_batch"] else "one image at a time"
    described = {
        "pixel_values": f"float32, (N, {channels}, h, w), {size}, {batch}: the image resized by Pillow, times "
        "`factor`, plus `offset` of segplus_export.json.",
        "size": "int64, [height, width] of the label maps.",
        "image": f"uint8, (H, W, {channels}); the graph resizes and normalises.",
        "served_size": "int64, [height, width] that the network gets.",
    }
    used = {name for graph in facts["graphs"].values() for name in graph["inputs"]}
    lines = [f"- `{name}`: {text}" for name, text in described.items() if name in used]
    decision = facts["decision"]
    chosen = (
        "class ids" if decision is None else f"class ids by the checkpoint's decision: {escape_text(decision['told'])}"
    )
    scores = (
        "`logits` (N, C, h', w'), float32"
        if facts["scores"] == "logits"
        else "`logits` (N, C, h', w'), float32: the queries' class scores, whose share of their sum is the probability"
    )
    return [*lines, f"- outputs: `labels` (N, height, width), {chosen}; {scores}."]


def format_parity(parity: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table of what differs between each graph and the model."""
    has_scores = any("mean_iou" in row for row in parity.values())
    lines = [
        "| graph | images | largest score difference | differing pixels |"
        + (" mIoU | of torch |" if has_scores else ""),
        "|---|---:|---:|---:|" + ("---:|---:|" if has_scores else ""),
    ]
    for name, row in parity.items():
        cells = [name, str(row["images"]), f"{row['score_difference']:.1e}", f"{row['differing_pixels']:.4%}"]
        if has_scores:
            cells += [format_score(row["mean_iou"], row["mean_iou_interval"])]
            cells += [format_score(row["torch_mean_iou"], row["torch_mean_iou_interval"])]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def format_score(score: float, interval: Any) -> str:
    """Return an mIoU in percent, with its interval where there is one."""
    known = interval is not None and all(one is not None and one == one for one in interval)
    return f"{score:.2%}" + (f" ({interval[0]:.2%} to {interval[1]:.2%})" if known else "")


def format_cost(cost: Mapping[str, Mapping[str, float]], size_px: Any) -> list[str]:
    """Return the table of size, time and memory, with the machine's threads as they were."""
    lines = [
        f"Label map of {size_px[0]} x {size_px[1]} pixels, preprocessing beside the graph not timed:",
        "",
        "| graph | file, MiB | median, ms | 95th percentile, ms | images/s | memory, MiB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in cost.items():
        lines.append(
            f"| {name} | {row['file_mib']:.1f} | {row['median_ms']:.1f} | {row['p95_ms']:.1f} | "
            f"{row['images_per_second']:.2f} | {row['memory_mib']:.0f} |"
        )
    return lines


def name_scores(found: Checkpoint) -> str:
    """Return what the model gives: `logits`, or `class_scores`, whose share of their sum is the probability."""
    return "class_scores" if is_mask_transformer(found.config) else "logits"


def describe_decision(found: Checkpoint) -> dict[str, Any] | None:
    """Return how the graphs and run.py choose classes; None where it is the most probable one.

    Returns:
        scores (`name_scores`), thresholds (None for a class without one), fallback (a class id or None),
        uncertain_below, no_class, the label of a pixel below it, and told: all of it in one line for people.
    """
    rule = build_rule(found.decision, found.class_names)
    if rule.is_argmax and not found.decision.uncertain_below:
        return None
    return {
        "scores": name_scores(found),
        "thresholds": [found.decision.thresholds.get(name) for name in found.class_names],
        "fallback": rule.choose_fallback(),
        "uncertain_below": found.decision.uncertain_below,
        "no_class": find_no_class(len(found.class_names)),
        "told": dataclasses.replace(found.decision, postprocess=PostprocessRecipe()).describe(),
    }


def list_left_out(found: Checkpoint) -> list[str]:
    """Return what the checkpoint's folder says of predictions that no graph holds."""
    folder, told = Path(found.source), []
    steps = DecisionRecipe(postprocess=found.decision.postprocess).describe()
    if steps:
        told.append(f"postprocess: {steps}")
    if (folder / "recipe.yaml").is_file():
        recipe = read_document(folder / "recipe.yaml", "recipe")
        recipe = recipe if isinstance(recipe, dict) else {}
        evaluation = recipe["evaluation"] if isinstance(recipe.get("evaluation"), dict) else {}
        stated = evaluation.get("protocol")
        protocol = stated.get("name", "fixed") if isinstance(stated, dict) else "fixed"
        if protocol != "fixed":
            told.append(f"evaluation.protocol: {protocol}; the graph's protocol is fixed: one pass at the served size")
    return told
