"""Images, tables and metrics.json."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.metrics import compute_scores
from segplus.reporting.drawing import (
    colorize,
    draw_batches,
    draw_comparison,
    draw_errors,
    draw_overlay,
    draw_panel,
    draw_panel_grid,
    measure_error_share,
    shrink_labels,
)
from segplus.reporting.examples import Example, choose_extremes
from segplus.reporting.failures import describe_failures
from segplus.reporting.metrics_file import clean_numbers, read_metrics, write_metrics
from segplus.reporting.scores import list_class_columns
from segplus.reporting.table import (
    describe_extremes,
    find_background,
    format_class_table,
    format_share,
    list_class_rows,
    measure_pixel_shares,
)

CLASSES = ClassMap.build(["sky", "road"], colors={"sky": (10, 20, 30), "road": (200, 100, 50)})
EVALUATION = {
    "mean_iou": 0.6,
    "mean_accuracy": 0.775,
    "mean_dice": 0.74,
    "per_category_iou": [0.75, 0.45, math.nan],
    "per_category_accuracy": [0.9, 0.65, math.nan],
    "mean_precision": 0.746,
    "per_category_precision": [0.928, 0.565, math.nan],
    "per_category_dice": [0.857, 0.62, math.nan],
    "confusion_matrix": [[90, 10, 0], [7, 13, 0], [0, 0, 0]],
}


def test_colorize_gives_class_colours_and_hatches_what_is_ignored() -> None:
    colored = colorize(np.array([[0, 1], [1, 255]], dtype=np.uint8), CLASSES)
    assert colored.shape == (2, 2, 3)
    assert colored.dtype == np.uint8
    assert colored[0, 0].tolist() == [10, 20, 30]
    assert colored[0, 1].tolist() == colored[1, 0].tolist() == [200, 100, 50]
    hatched = colorize(np.full((8, 8), 255), CLASSES).reshape(-1, 3)
    assert {tuple(pixel) for pixel in hatched.tolist()} == {(46, 46, 50), (74, 74, 80)}


def test_colorize_takes_more_than_255_classes() -> None:
    classes = ClassMap.build([f"class {index}" for index in range(300)])
    labels = np.array([[299, 65535]], dtype=np.uint16)
    colored = colorize(labels, classes)
    assert tuple(colored[0, 0].tolist()) == classes.colors[299]
    assert colored[0, 1].tolist() == [74, 74, 80]


def test_overlay_leaves_ignored_pixels_as_photographed() -> None:
    photo = Image.new("RGB", (2, 1), (100, 100, 100))
    drawn = np.asarray(draw_overlay(photo, np.array([[0, 255]]), CLASSES, opacity=0.5))
    assert drawn[0, 0].tolist() == [55, 60, 65]
    assert drawn[0, 1].tolist() == [100, 100, 100]


def test_overlay_leaves_the_background_as_photographed() -> None:
    photo = Image.new("RGB", (2, 1), (100, 100, 100))
    classes = ClassMap.build(["background", "crack"])
    drawn = np.asarray(draw_overlay(photo, np.array([[0, 1]]), classes))
    assert drawn[0, 0].tolist() == [100, 100, 100]
    assert drawn[0, 1].tolist() != [100, 100, 100]


def test_errors_are_amber_and_ignored_pixels_are_never_wrong() -> None:
    truth, prediction = np.array([[0, 1, 1, 255]]), np.array([[0, 0, 1, 0]])
    drawn = np.asarray(draw_errors(Image.new("RGB", (4, 1)), truth, prediction, CLASSES))
    assert drawn[0, 1].tolist() == [255, 176, 0]
    assert drawn[0, 0].tolist() == drawn[0, 2].tolist() == [12, 12, 12]
    assert measure_error_share(truth, prediction, CLASSES) == pytest.approx(1 / 3)
    assert math.isnan(measure_error_share(np.array([[255]]), np.array([[0]]), CLASSES))


def test_errors_stand_out_in_grey() -> None:
    """Lightness alone shows an error, even over a white photograph: a contrast of 3 (WCAG 2.2, 1.4.11)."""
    drawn = np.asarray(draw_errors(Image.new("RGB", (2, 1), "white"), np.array([[0, 0]]), np.array([[1, 0]]), CLASSES))
    share = drawn[0] / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    error, right = linear @ (0.2126, 0.7152, 0.0722)
    assert (error + 0.05) / (right + 0.05) > 3


def test_comparison_marks_where_predictions_differ() -> None:
    truth = np.zeros((20, 30), dtype=np.uint8)
    truth[0] = 255
    other = np.where(np.arange(30) < 15, 1, 0) * np.ones((20, 1), dtype=int)
    one, two = {"a": truth * 0, "b": other}, {"a": truth * 0, "b": truth * 0, "c": other}
    for predictions in (one, two):
        sheet = np.asarray(draw_comparison(Image.new("RGB", (30, 20)), truth, predictions, CLASSES, "x", 30))
        amber = (sheet == (255, 176, 0)).all(-1)
        assert amber.sum() == 15 * 19
        assert sheet.shape[1] == (len(predictions) + 3) * 38 - 8 + 28


@pytest.mark.parametrize("size", [(1, 1), (480, 360), (7, 1001), (3000, 2)])
def test_panel_has_four_tiles_of_the_same_shape(size: tuple[int, int]) -> None:
    width, height = size
    truth = np.zeros((height, width), dtype=np.uint8)
    panel = draw_panel(Image.new("L", size), truth, truth, CLASSES, title="a.jpg", tile_width_px=100)
    assert panel.mode == "RGB"
    assert panel.width == 4 * 100 + 3 * 8 + 2 * 14
    tile_height = max(1, round(100 * height / width))
    assert panel.height > tile_height
    pixels = np.asarray(panel).reshape(-1, 3)
    assert (pixels == (10, 20, 30)).all(axis=1).sum() >= 2 * 100 * tile_height


def test_labels_shrink_to_the_nearest_and_small_ones_stay() -> None:
    labels = np.arange(64).reshape(8, 8)
    assert shrink_labels(labels, (8, 9)) is labels
    assert shrink_labels(labels, (2, 8)).tolist() == [[18, 22], [50, 54]]
    assert shrink_labels(labels, (100, 1)).shape == (1, 1)


def test_panel_names_the_classes_present() -> None:
    truth = np.zeros((4, 4), dtype=np.uint8)
    photo = Image.new("RGB", (4, 4))
    road = np.asarray(draw_panel(photo, truth, truth + 1, CLASSES, tile_width_px=8))
    only_sky = np.asarray(draw_panel(photo, truth, truth, CLASSES, tile_width_px=8))
    assert (road == (200, 100, 50)).all(axis=2).any()
    assert not (only_sky == (200, 100, 50)).all(axis=2).any()


def test_panel_grid_stacks_examples_of_unequal_sizes() -> None:
    small, large = np.zeros((4, 8), dtype=np.uint8), np.ones((90, 60), dtype=np.uint8)
    examples = [
        Example("a.jpg", Image.new("RGB", (8, 4)), small, small, 1.0),
        Example("b.jpg", Image.new("RGB", (60, 90)), large, large),
    ]
    grid = draw_panel_grid(examples, CLASSES, tile_width_px=40)
    one = draw_panel_grid(examples[:1], CLASSES, tile_width_px=40)
    assert grid.dtype == np.uint8
    assert grid.shape[1:] == one.shape[1:] == (4 * 40 + 3 * 8 + 2 * 14, 3)
    assert grid.shape[0] > one.shape[0] + 60
    with pytest.raises(ValueError, match="at least one"):
        draw_panel_grid([], CLASSES)


def test_extremes_are_disjoint_and_leave_nan_out() -> None:
    scores = [0.9, math.nan, 0.1, 0.5, None, 0.2, 0.6, 0.8]
    assert choose_extremes(scores, 2) == {"worst": [2, 5], "median": [3, 6], "best": [0, 7]}
    assert choose_extremes(scores, 1) == {"worst": [2], "median": [3], "best": [0]}
    assert choose_extremes([0.5, 0.5, 0.5], 1) == {"worst": [0], "median": [1], "best": []}
    assert choose_extremes([0.1, 0.5, 0.5004, 0.9], 1) == {"worst": [0], "median": [1], "best": [3]}
    assert choose_extremes([0.1, 0.9, 0.9001, 0.9002, 0.95, 0.96], 2)["best"] == [5, 4]
    assert choose_extremes([1.0, 1.0], 3) == {"worst": [0], "median": [], "best": []}
    assert choose_extremes([0.9, 0.1], 3) == {"worst": [1], "median": [], "best": [0]}
    assert choose_extremes([0.9], 3) == {"worst": [0], "median": [], "best": []}
    assert choose_extremes([math.nan], 3) == {"worst": [], "median": [], "best": []}


def test_class_table() -> None:
    assert format_class_table(EVALUATION, ["sky", "lane marking", "car"]) == (
        "class         IoU %  precision %  recall %  Dice %  share %\n"
        "───────────────────────────────────────────────────────────\n"
        "sky            75.0         92.8      90.0    85.7     83.3\n"
        "lane marking   45.0         56.5      65.0    62.0     16.7\n"
        "car               —            —         —       —      0.0\n"
        "───────────────────────────────────────────────────────────\n"
        "mean           60.0         74.6      77.5    74.0"
    )


BAD = {
    **compute_scores(np.array([[950, 0, 0], [40, 0, 0], [9, 0, 1]])),
    "confusion_matrix": [[950, 0, 0], [40, 0, 0], [9, 0, 1]],
    "per_category_images": [12, 4, 1],
    "intervals": {"mean_iou": [math.nan] * 2, "per_category_iou": [[0.9, 0.99], [math.nan] * 2, [math.nan] * 2]},
}


NAMES = ["steel", "scratch", "stain"]


def test_what_is_wrong_is_said_in_a_sentence_a_class() -> None:
    first, second, advice = describe_failures(BAD, NAMES)
    assert first.startswith("scratch is never found: the model never predicts it. It has 40 pixels in 4 images; ")
    assert first.endswith("; all of them are taken for steel.")
    assert second.startswith("stain is mostly missed: of its 10 pixels in 1 image, 10.0 % are found; 90.0 % of them ")
    sound = {"confusion_matrix": [[5, 1], [1, 5]], "per_category_iou": [5 / 7, 5 / 7]}
    assert describe_failures(sound, ["a", "b"]) == []
    wrong, _ = describe_failures({"confusion_matrix": [[5, 1], [5, 0]]}, ["a", "b"])
    assert wrong.startswith("b is never found: where the model predicts it, it is always wrong. It has 5 pixels; ")
    for word in ("more steps", "class_weights", "tversky", "beta above alpha", "rare_class_crop"):
        assert word in advice


def test_a_class_that_is_hardly_ever_right_is_told_of() -> None:
    first, second, advice = describe_failures({"confusion_matrix": [[900, 97, 3], [0, 3, 0], [0, 0, 0]]}, NAMES)
    assert first == "stain is predicted where it is not: the truth holds none, the prediction 3 pixels."
    assert second == (
        "scratch is mostly predicted where it is not: of the 100 pixels that are predicted as it, 3.0 % are right; "
        "most of the others are steel."
    )
    assert "alpha above beta" in advice
    assert describe_failures({"confusion_matrix": [[900, 95], [0, 5]]}, ["a", "b"]) == []  # 5 %, and no less


def test_most_failures_are_counted() -> None:
    matrix = np.zeros((9, 9), dtype=np.int64)
    matrix[:, 0] = 10
    told = describe_failures({"confusion_matrix": matrix}, [f"class {index}" for index in range(9)])
    assert [sentence.startswith("class") for sentence in told] == [True] * 5 + [False] * 2
    assert told[5] == "3 more classes are found in less than 20% of the pixels, or hardly ever right."


def test_the_background_fills_more_than_half_of_the_pixels() -> None:
    assert find_background({"confusion_matrix": [[49, 0], [1, 50]]}) == 1
    assert find_background({"confusion_matrix": [[50, 0], [1, 49]]}) is None
    assert find_background({"confusion_matrix": [[50]]}) is None
    assert find_background({}) is None


def test_a_panel_shows_the_photograph_where_the_background_is() -> None:
    truth = np.zeros((10, 10), dtype=np.uint8)
    truth[4:6] = 1
    panel = np.asarray(draw_panel(Image.new("RGB", (10, 10), "white"), truth, truth, CLASSES, "", 10, background=0))
    assert not (panel == (10, 20, 30)).all(axis=2).any()
    swatch = 14 * 14 - 4 * 13  # without its frame
    assert (panel == (200, 100, 50)).all(axis=2).sum() == 2 * 20 + swatch


def test_batches_are_drawn_with_their_labels() -> None:
    image, label = np.full((10, 20, 3), 7, dtype=np.uint8), np.array([[0] * 20, *[[1] * 20] * 9])
    drawn = np.asarray(draw_batches([([image] * 3, [label] * 3), ([image], [label])], CLASSES, 20))
    assert (drawn == (7, 7, 7)).all(axis=2).sum() == 4 * 200
    swatch = 14 * 14 - 4 * 13
    assert (drawn == (10, 20, 30)).all(axis=2).sum() == 4 * 20 + swatch


def test_tables_say_in_words_what_has_no_number() -> None:
    assert [row["95 %"] for row in list_class_rows(BAD, NAMES)] == ["90.0 to 99.0", "too few images", "too few images"]
    precision = list_class_columns(clean_numbers(BAD))["Precision"]
    assert [cell["text"] for cell in precision] == ["95.1", "never predicted", "100.0"]
    assert "too few images" in format_class_table(BAD, NAMES).splitlines()[-1]
    matrix = [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    rows = list_class_rows({**compute_scores(np.array(matrix)), "confusion_matrix": matrix}, ["a", "b", "c"])
    assert [row["recall"] for row in rows] == ["50.0", "not in the truth", "—"]


def test_class_table_without_confusion_matrix_has_no_share() -> None:
    table = format_class_table({"mean_iou": 1.0, "per_category_iou": [1.0]}, ["sky"])
    assert table.splitlines()[0] == "class  IoU %"
    with pytest.raises(ValueError, match="1 values for 2 class names"):
        format_class_table({"per_category_iou": [1.0]}, ["sky", "road"])


def test_shares() -> None:
    assert measure_pixel_shares(EVALUATION) == pytest.approx([100 / 120, 20 / 120, 0])
    assert measure_pixel_shares({"confusion_matrix": torch.tensor([[3, 0], [0, 1]])}) == [0.75, 0.25]
    assert [format_share(value) for value in (0.5, 0.01, 0.008, 0.00234, 0.0, math.nan)] == [
        "50.0",
        "1.0",
        "0.80",
        "0.23",
        "0.0",
        "—",
    ]


def test_one_line_of_the_best_and_worst_class() -> None:
    line = describe_extremes(EVALUATION, ["sky", "road", "car"])
    assert line == "best class sky (IoU 75.0 %), worst road (45.0 %)"
    assert describe_extremes({"per_category_iou": [math.nan]}, ["sky"]) == "no class occurs"


def test_metrics_come_back_with_null_as_nan(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.json"
    evaluation = EVALUATION | {"loss": math.inf, "images": np.int64(3), "boundary_iou": torch.tensor(0.25)}
    write_metrics(path, {"class_names": ("sky", "road", "car"), "evaluations": {"test": evaluation}})
    text = path.read_text(encoding="utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text
    raw = json.loads(text)["evaluations"]["test"]
    assert raw["per_category_iou"] == [0.75, 0.45, None]
    assert raw["loss"] is None
    assert raw["images"] == 3
    assert raw["boundary_iou"] == 0.25
    back = read_metrics(path)["evaluations"]["test"]
    assert back["per_category_iou"][:2] == [0.75, 0.45]
    assert math.isnan(back["per_category_iou"][2])
    assert math.isnan(back["loss"])
    assert [entry.name for entry in path.parent.iterdir()] == ["metrics.json"]


def test_metrics_stay_whole_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    write_metrics(path, {"first": 1})

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_metrics(path, {"second": 2})
    assert json.loads(path.read_text()) == {"first": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), ("{", "not a metrics.json"), ("[]", "list")])
def test_metrics_that_cannot_be_read_are_an_input_error(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_metrics(path)
