"""Checkpoints that bring their own model code: run where a person trusts it, and refused with the way to say so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from segplus.__main__ import main
from segplus.errors import EXIT_CODE_INPUT

CODE = """
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput


class PlainConfig(PreTrainedConfig):
    model_type = "segplus_test_plain"


class PlainNet(PreTrainedModel):
    config_class = PlainConfig

    def __init__(self, config):
        super().__init__(config)
        self.head = nn.Conv2d(3, config.num_labels, 1)
        self.post_init()

    def forward(self, pixel_values):
        return SemanticSegmenterOutput(logits=self.head(pixel_values))
"""


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a model that calls dark pixels ground and bright ones thing; transformers copies its code before use."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "plain_net.py").write_text(CODE)
    config = {
        "model_type": "segplus_test_plain",
        "architectures": ["PlainNet"],
        "auto_map": {
            "AutoConfig": "plain_net.PlainConfig",
            "AutoModelForSemanticSegmentation": "plain_net.PlainNet",
        },
        "id2label": {"0": "ground", "1": "thing"},
        "label2id": {"ground": 0, "thing": 1},
    }
    (folder / "config.json").write_text(json.dumps(config))
    weights = {"head.weight": torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 3, 1, 1).contiguous()}
    save_file(weights | {"head.bias": torch.tensor([1.5, -1.5])}, folder / "model.safetensors", {"format": "pt"})
    SegformerImageProcessorPil(do_resize=False, do_normalize=False).save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write two images that show their masks."""
    folder = tmp_path / "data"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(2):
        ids = rng.integers(0, 2, (8, 12), dtype=np.uint8)
        Image.fromarray(np.repeat(ids[..., None] * 255, 3, axis=2)).save(folder / "images" / f"{number}.png")
        Image.fromarray(ids).save(folder / "masks" / f"{number}.png")
    (folder / "id2label.json").write_text(json.dumps({"0": "ground", "1": "thing"}))
    return folder


def test_code_that_is_trusted_is_evaluated_compared_and_predicted_with(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    trusted = ["--trust-remote-code"]
    assert main(["evaluate", str(checkpoint), str(data), "-o", str(tmp_path / "scores"), *trusted]) == 0
    (scores,) = json.loads((tmp_path / "scores" / "metrics.json").read_text())["evaluations"].values()
    assert scores["mean_iou"] == 1.0
    images = ["predict", str(checkpoint), str(data / "images"), "-o", str(tmp_path / "masks"), *trusted]
    assert main(images) == 0
    np.testing.assert_array_equal(
        np.array(Image.open(tmp_path / "masks" / "0.png")), np.array(Image.open(data / "masks" / "0.png"))
    )
    other = tmp_path / "other"
    checkpoint.rename(other)
    other.joinpath("copy").mkdir()
    for path in [path for path in other.iterdir() if path.is_file()]:
        (other / "copy" / path.name).write_bytes(path.read_bytes())
    both = [str(other), str(other / "copy")]
    assert main(["compare", *both, "--data", str(data), "-o", str(tmp_path / "compared"), *trusted]) == 0
    compared = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert [one["mean_iou"] for one in compared["scores"]] == [1.0, 1.0]


@pytest.mark.parametrize("verb", ["evaluate", "compare", "predict"])
def test_code_that_nobody_trusted_is_not_run(
    checkpoint: Path, data: Path, tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint / "plain_net.py").write_text("raise SystemExit('the code was run')")
    output = ["-o", str(tmp_path / "out")]
    commands = {
        "evaluate": ["evaluate", str(checkpoint), str(data), *output],
        "compare": ["compare", str(checkpoint), str(data), "--data", str(data), *output],
        "predict": ["predict", str(checkpoint), str(data / "images"), *output],
    }
    assert main(commands[verb]) == EXIT_CODE_INPUT
    said = capsys.readouterr().err
    assert "--trust-remote-code" in said
    assert "model.trust_remote_code: true" in said
