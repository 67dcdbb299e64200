"""What is deployed is what was evaluated: protocols, ensembles, thresholds and steps, by the real commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from test_inference_commands import SIZES, find_images, read_label, refuse, write_data, write_model

from segplus.__main__ import main
from segplus.errors import InputError
from segplus.inference.checkpoint import find_checkpoint
from segplus.inference.decision_file import DECISION_FILE
from segplus.inference.decisions import ClassRule, build_rule, choose_classes
from segplus.inference.ensemble import find_ensemble
from segplus.metrics import Evaluator
from segplus.recipe.evaluation_section import ProtocolRecipe
from segplus.recipe.postprocess_section import DecisionRecipe
from segplus.reporting.metrics_file import read_metrics

PROTOCOLS = {
    "fixed": [],
    "sliding": ["--protocol", "sliding", "--window_px", "[32, 32]"],
    "scales": ["--scales", "[0.5, 1.0]", "--average", "probabilities", "--flip", "true"],
}
DECISIONS = {
    "most probable": {},
    "thresholds": {"thresholds": {"road": 0.2, "car": 0.6}, "fallback": "tree", "uncertain_below": 0.3},
    "steps": {"postprocess": {"fill_holes_below_px": 9, "remove_below_px": {"road": 4}, "majority_px": 1}},
    "everything": {
        "thresholds": {"tree": 0.15},
        "uncertain_below": 0.3,
        "postprocess": {"smooth_scores_px": 1.0, "crf": {"iterations": 1, "radius_px": 1}, "keep_largest": {"car": 1}},
    },
}
SCORED = ["--split", "train", "--data.validation_share", "0", "--bootstrap_resamples", "0"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds the runs of three folds."""
    folder = tmp_path_factory.mktemp("runs")
    for fold in range(3):
        write_model(folder / f"fold-{fold}", fold)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "scenes")


def predict_as_evaluated(sources: list[str], data: Path, folder: Path, options: list[str]) -> dict[str, np.ndarray]:
    """Return the label maps that evaluate, compare's inputs and predict agree on, after they were scored."""
    scored = [*SCORED, "--save-predictions", "ids", "-o", str(folder / "scored"), *options]
    assert main(["evaluate", *sources, str(data), *scored]) == 0
    assert main(["predict", *sources, str(data / "images"), "-o", str(folder / "labels"), *options]) == 0
    expected, found = find_images(folder / "scored" / "predictions"), find_images(folder / "labels")
    assert expected.keys() == found.keys() == {f"{number}.png" for number in range(len(SIZES))}
    for image in found:
        np.testing.assert_array_equal(found[image], expected[image])
    matrix, left_open = np.zeros((4, 4), dtype=np.int64), 0
    for image, guess in found.items():
        truth = read_label(data / "masks" / image)
        valid = (truth != 255) & (guess != 255)
        left_open += int(((truth != 255) & (guess == 255)).sum())
        np.add.at(matrix, (truth[valid], guess[valid]), 1)
    scores = read_metrics(folder / "scored" / "metrics.json")["evaluations"]["train"]
    np.testing.assert_array_equal(scores["confusion_matrix"], matrix)
    if left_open:
        assert scores["coverage"] == matrix.sum() / (matrix.sum() + left_open)
    return found


FAST = [("fixed", True, "everything"), ("sliding", False, "thresholds"), ("fixed", False, "steps")]
ALL = [(protocol, together, name) for protocol in PROTOCOLS for together in (False, True) for name in DECISIONS]


@pytest.mark.parametrize(
    ("protocol", "is_ensemble", "decision"),
    [*FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in ALL if case not in FAST)],
)
def test_what_is_deployed_is_what_was_evaluated(runs, data, tmp_path, protocol, is_ensemble, decision):
    """The decision lies in the checkpoint, or, of an ensemble, in a file that is named."""
    options = list(PROTOCOLS[protocol])
    source = str(runs)
    if is_ensemble:
        (tmp_path / "decision.json").write_text(json.dumps(DECISIONS[decision]))
        options += ["--decision", str(tmp_path / "decision.json")]
    else:
        source = str(shutil.copytree(runs / "fold-0", tmp_path / "model"))
        (tmp_path / "model" / DECISION_FILE).write_text(json.dumps(DECISIONS[decision]))
    found = predict_as_evaluated([source], data, tmp_path, options)
    plain = tmp_path / "plain"
    assert (
        main(["predict", source, str(data / "images"), "-o", str(plain), *PROTOCOLS[protocol], "--decision", "none"])
        == 0
    )
    changed = sum(int((found[name] != other).sum()) for name, other in find_images(plain).items())
    assert (changed > 0) == (decision != "most probable")
    assert any((one == 255).any() for one in found.values()) == ("uncertain_below" in DECISIONS[decision])


def test_an_ensemble_is_the_mean_of_its_members(runs, data):
    sources = [str(runs / f"fold-{fold}") for fold in range(3)]
    image = find_ensemble(sources[0]).load().predict  # of one checkpoint: that checkpoint's
    assert image is not None
    pixels = _read(data / "images" / "2.png")
    for protocol in (ProtocolRecipe(), ProtocolRecipe(name="original", average="probabilities")):
        alone = [find_checkpoint(source).load(protocol) for source in sources]
        together = find_ensemble(str(runs)).load(protocol)
        assert len(together.members) == 3
        if protocol.average == "probabilities":
            mean = torch.stack([one.predict_probabilities(pixels) for one in alone]).mean(0)
            torch.testing.assert_close(together.predict_probabilities(pixels), mean, atol=1e-6, rtol=0)
        else:
            logs = torch.stack([one.predict_probabilities(pixels).log() for one in alone]).mean(0)
            torch.testing.assert_close(together.predict_probabilities(pixels), logs.softmax(0), atol=1e-5, rtol=0)
        top = together.predict_probabilities(pixels).argmax(0)
        assert float((together.predict(pixels) == top).float().mean()) > 0.999


def _read(path: Path):
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


@pytest.mark.parametrize(
    ("probabilities", "thresholds", "fallback", "expected"),
    [
        ([0.5, 0.3, 0.2], {1: 0.3}, None, 1),  # reached
        ([0.5, 0.29, 0.21], {1: 0.3}, None, 0),
        ([0.4, 0.5, 0.1], {1: 0.6}, None, 0),  # the most probable one does not reach its own
        ([0.3, 0.36, 0.34], {1: 0.3, 2: 0.2}, None, 2),  # both reach theirs: the greater ratio
        ([0.5, 0.25, 0.25], {0: 0.6, 1: 0.5, 2: 0.4}, None, 0),  # none does, and all have one: the greater ratio
        ([0.1, 0.2, 0.7], {0: 0.2, 1: 0.5}, None, 2),
        ([0.5, 0.5, 0.0], {}, 0, 0),
        ([0.1, 0.7, 0.2], {1: 0.8}, None, 2),  # without a fallback the next class, however improbable
        ([0.1, 0.7, 0.2], {1: 0.8}, 0, 0),
        ([0.1, 0.35, 0.55], {1: 0.8}, 0, 2),  # the most probable one has no threshold
        ([0.1, 0.6, 0.3], {1: 0.8, 2: 0.25}, 0, 2),  # another one reaches its own
        ([0.1, 0.6, 0.3], {1: 0.8, 2: 0.4}, 0, 0),
        ([0.6, 0.3, 0.1], {0: 0.7}, 0, 1),  # a class with a threshold is no fallback
    ],
)
def test_thresholds_by_hand(probabilities, thresholds, fallback, expected):
    limits = torch.tensor([thresholds.get(index, torch.nan) for index in range(3)])
    assert choose_classes(torch.tensor([probabilities]), ClassRule(limits, fallback)).tolist() == [expected]


def test_the_background_takes_what_reaches_no_threshold():
    decision = DecisionRecipe({"crack": 0.8})
    assert build_rule(decision, ["crack", "rust", "Background"]).fallback == 2
    assert build_rule(decision, ["crack", "rust"]).fallback is None
    assert build_rule(DecisionRecipe({"crack": 0.8}, "rust"), ["crack", "rust", "background"]).fallback == 1
    with pytest.raises(InputError, match="fallback: no class 'rusty'"):
        build_rule(DecisionRecipe(fallback="rusty"), ["crack", "rust"])
    with pytest.raises(InputError, match="threshold of rust: the fallback takes"):
        DecisionRecipe({"rust": 0.8}, "rust")


def test_a_threshold_of_one_half_of_two_classes_changes_nothing():
    probabilities = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)).softmax(-1)
    rules = [ClassRule(torch.tensor([torch.nan, limit]), 0) for limit in (0.3, 0.5, 0.6)]
    assert torch.equal(choose_classes(probabilities, rules[1]), probabilities.argmax(-1))
    found = [int(choose_classes(probabilities, rule).sum()) for rule in rules]
    assert found[0] > found[1] > found[2]


def test_pixels_left_open_count_in_the_coverage_alone():
    truth = torch.tensor([[0, 1, 255, 1]], dtype=torch.uint8)
    open_too = Evaluator(2)
    open_too.update(torch.tensor([[0, 255, 255, 0]], dtype=torch.uint8), truth, 0, "a")
    scores = open_too.compute()
    assert scores["confusion_matrix"] == [[1, 0], [1, 0]]
    assert scores["coverage"] == 2 / 3
    everything = Evaluator(2)
    everything.update(torch.tensor([[0, 0, 0, 0]]), truth, 1, "b")
    assert "coverage" not in everything.compute()
    assert everything.merge(open_too).compute()["coverage"] == 5 / 6


def test_decisions_that_cannot_be_are_one_message(runs, data, tmp_path, capsys):
    one = str(shutil.copytree(runs / "fold-0", tmp_path / "model"))
    image, out = str(data / "images" / "0.png"), ["-o", str(tmp_path / "out.png")]
    for options, message in (
        (["--threshold", "rod=0.3"], "thresholds: no class 'rod'"),
        (["--threshold", "road"], "CLASS=PROBABILITY"),
        (["--threshold", "road=0"], "threshold of road\n  found: 0"),
        (["--fallback", "rod"], "fallback: no class 'rod'"),
        (["--uncertain-below", "2"], "uncertain_below\n  found: 2"),
        (["--postprocess.keep_largest.roda", "1"], "postprocess.keep_largest: no class 'roda'"),
        (["--decision", str(tmp_path / "nowhere.json")], "no such file"),
    ):
        assert message in refuse(capsys, "predict", one, image, *out, *options)
    (tmp_path / "model" / DECISION_FILE).write_text('{"thresholds": {"road": 0.3}')
    assert f"{DECISION_FILE}: damaged" in refuse(capsys, "predict", one, image, *out)
    (tmp_path / "model" / DECISION_FILE).write_text('{"threshold": {"road": 0.3}}')
    assert "did you mean 'thresholds'" in refuse(capsys, "predict", one, image, *out)
    (tmp_path / "model" / DECISION_FILE).write_text('{"thresholds": {"road": 0.3}}')
    said = refuse(capsys, "predict", one, str(runs / "fold-1"), image, *out)
    assert "have different decisions" in said
    assert "--decision none" in said
    assert "a checkpoint is named twice" in refuse(capsys, "predict", one, one, image, *out)
    other = write_model(tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["id2label"]["1"], config["label2id"] = "street", {}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    assert "differ in their class names" in refuse(capsys, "predict", str(runs / "fold-1"), other, image, *out)


def test_what_the_command_line_changes_of_a_stored_decision(runs, tmp_path):
    one = shutil.copytree(runs / "fold-0", tmp_path / "model")
    stored = {"thresholds": {"road": 0.3}, "postprocess": {"majority_px": 1, "keep_largest": {"car": 1}}}
    (one / DECISION_FILE).write_text(json.dumps(stored))
    changes = {"thresholds": {"car": 0.5}, "postprocess": {"keep_largest": {"road": 2}}, "uncertain_below": 0.1}
    found = find_ensemble(str(one), changes).decision
    assert found.thresholds == {"road": 0.3, "car": 0.5}
    assert found.postprocess.majority_px == 1
    assert found.postprocess.keep_largest == {"car": 1, "road": 2}
    assert find_ensemble(str(one), DecisionRecipe()).decision.describe() == ""
    assert find_checkpoint(str(one)).load().decision.thresholds == {"road": 0.3}
