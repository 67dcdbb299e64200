"""segplus export of mask transformers: the graph scores classes from queries as the predictor does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_mask_transformers import FAMILIES, SIDE_PX, SPLITTING, build_model
from transformers import PreTrainedModel

from segplus.commands.export import export
from segplus.errors import InputError
from segplus.export.parity import draw_images
from segplus.export.runner import Network
from segplus.export.tracing import capture_program, plain_mask_probabilities
from segplus.metrics import label_map
from segplus.models import load_image_processor
from segplus.models.mask_transformers import compute_graph_scores, compute_scores
from segplus.models.mask_transformers.class_scores import predict_queries
from segplus.recipe import ModelRecipe


def write_checkpoint(folder: Path, model: PreTrainedModel) -> str:
    """Write a model with the image processor that a run would save, of one size where the model takes any."""
    size: dict[str, Any] = {"size": {"height": SIDE_PX, "width": 96}}
    wishes = {} if model.config.model_type in SPLITTING else size
    model.save_pretrained(folder)
    recipe = ModelRecipe(config=model.config.to_dict(), image_processor=wishes)
    load_image_processor(recipe, model.config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("size", [(64, 150), (150, 64), (64, 64)])
@pytest.mark.parametrize("rows", [1 << 24, 2000])
def test_patches_are_joined_as_where_they_are_written(
    size: tuple[int, int], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segplus.models.mask_transformers.class_scores._BLOCK_VALUES", rows)
    model = build_model("eomt")
    pixel_values = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = compute_graph_scores(model, pixel_values), compute_scores(model, pixel_values)
    assert found.shape == (2, 5, *size)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    spans = predict_queries(model, pixel_values).split.spans
    assert len(spans) == (1 if size == (64, 64) else 3)


def test_masked_attention_is_a_number_while_it_is_traced_and_never_random() -> None:
    model = build_model("eomt")
    before = model.state_dict()
    with plain_mask_probabilities(model):
        assert model.attn_mask_probs == (1.0,)
    assert list(model.state_dict()) == list(before)
    assert isinstance(model.attn_mask_probs, torch.Tensor)
    model.attn_mask_probs.fill_(0.5)
    with pytest.raises(InputError, match=r"draws at random.*\n  found: attn_mask_probs: \[0.5\]\n  allowed: 0 or 1"):
        capture_program(model, 3, (64, 64))


def test_images_that_are_cut_have_one_size(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "model", build_model("eomt"))
    for size in (None, "dynamic", "96x128"):
        with pytest.raises(InputError, match=r"cuts an image into squares of 64 pixels.*(\n.*)*--size 64x128"):
            export(checkpoint, tmp_path / "out", export_format="torch_export", size=size, timed_runs=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_program_decides_on_class_scores_as_the_predictor(tmp_path: Path) -> None:
    model = build_model("eomt_dinov3")
    model.attn_mask_probs.zero_()  # as a whole training leaves it
    checkpoint = write_checkpoint(tmp_path / "model", model)
    decision = {"thresholds": {"class 1": 0.22}, "fallback": "class 0", "uncertain_below": 0.205}
    (tmp_path / "model" / "segplus_decision.json").write_text(json.dumps(decision))
    facts = export(checkpoint, tmp_path / "out", export_format="torch_export", size="64x96", timed_runs=2)
    assert facts["scores"] == "class_scores"
    assert facts["parity"]["model.pt2"]["score_difference"] < 1e-4
    assert facts["parity"]["model.pt2"]["differing_pixels"] < 1e-3
    assert facts["cost"]["torch"]["median_ms"] > 0
    assert "the queries' class scores" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("model_type", FAMILIES)
def test_onnx_graphs_of_mask_transformers_give_the_models_scores(model_type: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    checkpoint = write_checkpoint(tmp_path / "model", build_model(model_type, loudness=10.0))
    size = "64x96" if model_type in SPLITTING else None
    facts = export(checkpoint, tmp_path / "out", size=size, preprocessing="beside", timed_runs=0, progress=False)
    assert facts["parity"]["model.onnx"]["score_difference"] < 5e-4
    # The classes of random weights lie close together: the label map is held beside the graph's own scores.
    image = draw_images(3, 1)[0]
    network = Network(tmp_path / "out")
    labels, scores = network.run(network.feed(image))
    expected = label_map(torch.from_numpy(scores), image.shape[:2]).numpy()
    assert (labels != expected).mean() < 1e-3
    assert len(np.unique(labels)) > 1 or model_type == "eomt_dinov3"
