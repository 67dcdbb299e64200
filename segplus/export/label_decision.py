"""A decision in a graph: thresholds, their fallback and what is left uncertain, as `choose_classes` has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from segplus.export.runner import LEAST_SCORE

Constants = dict[str, npt.NDArray[Any]]


def make_decision(scores: str, target: str, decision: Mapping[str, Any]) -> tuple[list[onnx.NodeProto], Constants]:
    """Return the nodes from scores (N, C, H, W) to class ids, int64, (N, H, W), and their constants.

    Args:
        scores: Name of the scores at the label map's size.
        target: Name of the class ids.
        decision: From `describe_decision`.
    """
    given = np.array([np.nan if one is None else one for one in decision["thresholds"]], np.float32)
    limited = ~np.isnan(given)
    constants: Constants = {
        "decision_thresholds": np.where(limited, given, np.float32(np.inf)).reshape(1, -1, 1, 1),
        "decision_one": np.array(1, np.float32),
        "decision_axis": np.array([1], np.int64),
    }
    nodes = [
        *_make_shares(scores, decision["scores"], constants),
        helper.make_node("Div", ["decision_shares", "decision_thresholds"], ["decision_ratios"]),
        helper.make_node("ReduceMax", ["decision_ratios", "decision_axis"], ["decision_best"], keepdims=0),
        helper.make_node("ArgMax", ["decision_ratios"], ["decision_greatest"], axis=1, keepdims=0),
        helper.make_node("GreaterOrEqual", ["decision_best", "decision_one"], ["decision_reached"]),
    ]
    others, further, more = _choose_others(limited, decision["fallback"])
    nodes += further
    constants |= more
    nodes.append(helper.make_node("Where", ["decision_reached", "decision_greatest", others], ["decision_ids"]))
    constants |= {
        "decision_least": np.array(decision["uncertain_below"], np.float32),
        "decision_no_class": np.array(decision["no_class"], np.int64),
    }
    nodes += [
        helper.make_node("Unsqueeze", ["decision_ids", "decision_axis"], ["decision_index"]),
        helper.make_node("GatherElements", ["decision_shares", "decision_index"], ["decision_own"], axis=1),
        helper.make_node("Squeeze", ["decision_own", "decision_axis"], ["decision_confidence"]),
        helper.make_node("Less", ["decision_confidence", "decision_least"], ["decision_uncertain"]),
        helper.make_node("Where", ["decision_uncertain", "decision_no_class", "decision_ids"], [target]),
    ]
    return nodes, constants


def _make_shares(scores: str, kind: str, constants: Constants) -> list[onnx.NodeProto]:
    """Return the nodes from scores to probabilities: of logits, or of the scores that a mask transformer gives."""
    if kind == "logits":
        return [helper.make_node("Softmax", [scores], ["decision_shares"], axis=1)]
    constants["decision_raise"] = np.array(LEAST_SCORE, np.float32)
    return [
        helper.make_node("Add", [scores, "decision_raise"], ["decision_raised"]),
        helper.make_node("ReduceSum", ["decision_raised", "decision_axis"], ["decision_sum"], keepdims=1),
        helper.make_node("Div", ["decision_raised", "decision_sum"], ["decision_shares"]),
    ]


def _choose_others(limited: npt.NDArray[np.bool_], fallback: int | None) -> tuple[str, list[onnx.NodeProto], Constants]:
    """Return the name of the class ids of pixels that reach no threshold, its nodes and their constants."""
    if fallback is not None:
        nodes = [
            helper.make_node("ArgMax", ["decision_shares"], ["decision_most"], axis=1, keepdims=0),
            helper.make_node("Gather", ["decision_limited", "decision_most"], ["decision_below"]),
            helper.make_node("Where", ["decision_below", "decision_fallback", "decision_most"], ["decision_others"]),
        ]
        constants = {"decision_limited": limited, "decision_fallback": np.array(fallback, np.int64)}
        return "decision_others", nodes, constants
    if limited.all():
        return "decision_greatest", [], {}
    nodes = [
        helper.make_node("Add", ["decision_shares", "decision_open"], ["decision_open_shares"]),
        helper.make_node("ArgMax", ["decision_open_shares"], ["decision_others"], axis=1, keepdims=0),
    ]
    return "decision_others", nodes, {"decision_open": -limited.astype(np.float32).reshape(1, -1, 1, 1)}
