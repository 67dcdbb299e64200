"""An inspection as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MARKS = {"error": "ERROR  ", "warning": "WARNING", "note": "note   "}
_SHOWN = 3  # files of a finding; of more, whose number its message has, the first one is an example
_MOST = 10  # classes of a table, and findings: the rest is in the JSON and on the page


def render_text(report: Mapping[str, Any]) -> str:
    """Return the report as lines for people: what was found, the splits, the classes, the findings, the recipe."""
    lines = [f"{report['dataset']}: " + "; ".join(report["found"][:1]), *(f"  {line}" for line in report["found"][1:])]
    lines += _render_splits(report["splits"])
    lines += _render_classes(report)
    lines += _render_findings(report["findings"])
    if "recipe" in report:
        lines += ["", *(f"because: {reason}" for reason in report["reasons"])]
        lines += [f"question: {report['question']}"] if report["question"] else []
        lines += ["", "A recipe that fits:", *(f"  {line}" for line in report["recipe"].splitlines())]
    return "\n".join(lines) + "\n"


def _render_splits(splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, split in splits.items():
        if not split["pairs"]:
            lines += ["", f"{name}: no pair that can be read"]
            continue
        sizes = ", ".join(
            f"{width} x {height}" + (f" ({count})" if split["distinct_sizes"] > 1 else "")
            for height, width, count in split["sizes_px"][:3]
        )
        more = f" and {split['distinct_sizes'] - 3} more sizes" if split["distinct_sizes"] > 3 else ""
        images, masks = (
            ", ".join(f"{encoding} ({count})" for encoding, count in split[key].items())
            for key in ("image_encodings", "mask_encodings")
        )
        lines += [
            "",
            f"{name}: {split['pairs']} pairs, {sizes} px{more}, void {100 * split['void_share']:.2f} %",
            f"  images {images}; masks {masks}",
        ]
    return lines


def _render_classes(report: Mapping[str, Any]) -> list[str]:
    if not report["splits"]:
        return []
    width = max(len("(ignored)"), *(len(name) for name in report["class_names"]))
    lines = []
    for split, counts in report["splits"].items():
        if not counts["pairs"]:
            continue
        total = max(1, counts["pixels"])
        lines += ["", f"{split:{width}}  {'pixels':>14}  {'share':>8}  {'images':>7}  {'objects':>8}  {'smallest':>9}"]
        names = sorted(report["class_names"], key=lambda name: -counts["pixel_counts"][name])[:_MOST]
        for name in (name for name in report["class_names"] if name in names):
            pixels = counts["pixel_counts"][name]
            lines.append(
                f"{name:{width}}  {pixels:14d}  {100 * pixels / total:7.3f}%  {counts['images_containing'][name]:7d}"
                f"  {counts['objects'][name]:8d}  {counts['smallest_object_px'][name]:6d} px"
            )
        lines += _tell_rest(len(report["class_names"]) - _MOST, "classes with fewer pixels")
        ignored = counts["ignored_pixels"]
        lines.append(
            f"{'(ignored)':{width}}  {ignored:14d}  {100 * ignored / total:7.3f}%  {counts['images_with_ignored']:7d}"
        )
    if "class_weights" in report:
        formulas = list(report["class_weights"])
        lines += ["", f"{'weights':{width}}  " + "  ".join(f"{name:>17}" for name in formulas)]
        for name in report["class_names"][:_MOST]:
            values = [report["class_weights"][formula][name] for formula in formulas]
            lines.append(
                f"{name:{width}}  " + "  ".join(f"{'absent' if v is None else format(v, '.4f'):>17}" for v in values)
            )
        lines += _tell_rest(len(report["class_names"]) - _MOST, "classes")
    return lines


def _tell_rest(count: int, what: str) -> list[str]:
    return [f"... and {count} {what}: segplus inspect --json, or --page"] if count > 0 else []


def _render_findings(findings: list[Mapping[str, Any]]) -> list[str]:
    findings = [finding for finding in findings if finding["level"] != "question"]  # it stands above the recipe
    if not findings:
        return ["", "Nothing wrong was found."]
    lines = [""]
    for finding in findings[:_MOST]:
        lines.append(f"{_MARKS[finding['level']]}  {finding['message']}")
        files = finding["files"]
        lines += (
            [f"           {file}" for file in files] if len(files) <= _SHOWN else [f"           such as {files[0]}"]
        )
        if finding["fix"]:
            lines.append(f"           fix: {finding['fix']}")
    return lines + _tell_rest(len(findings) - _MOST, "findings")
