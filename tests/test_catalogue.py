"""The table of models: every model has its row, the counts are the models', docs and terminal show the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSemanticSegmentation

from segplus import models
from segplus.__main__ import main
from segplus.classes import ClassMap
from segplus.models.catalogue import (
    HEADS_LISTED,
    LIBRARY,
    NETWORKS,
    CatalogueRow,
    render_heads,
    render_list,
    render_networks,
)
from segplus.models.heads import HEADS
from segplus.models.model_configs import build_config
from segplus.recipe import ModelRecipe

ROOT = Path(__file__).parents[1]


SIDES_PX = {"dpt": 384, "beit": 224, "data2vec-vision": 224}  # the others take any


def build_on_meta(config: object) -> torch.nn.Module:
    with torch.device("meta"):
        return AutoModelForSemanticSegmentation.from_config(config).eval()


def count_millions(config: object) -> float:
    return sum(p.numel() for p in build_on_meta(config).parameters()) / 1e6


def test_every_network_and_head_has_its_row() -> None:
    networks = {model.config_class.model_type for model in models.ARCHITECTURES} - {"segplus-encoder-head"}
    assert sorted(networks) == sorted(row.name for row in NETWORKS)
    assert sorted(HEADS) == sorted(row.name for row in HEADS_LISTED)
    names = [row.name for row in (*NETWORKS, *HEADS_LISTED)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("row", NETWORKS, ids=lambda row: row.name)
def test_the_counts_of_networks_are_the_networks(row: CatalogueRow) -> None:
    without = AutoConfig.for_model(row.name, **row.config, use_auxiliary_head=False)
    assert count_millions(without) == pytest.approx(row.millions, abs=0.005 if row.millions > 1 else 0.0005)
    if row.training_millions is not None:
        assert count_millions(AutoConfig.for_model(row.name, **row.config)) == pytest.approx(
            row.training_millions, abs=0.005
        )


@pytest.mark.parametrize("row", LIBRARY, ids=lambda row: row.name)
def test_the_counts_of_the_librarys_models_are_theirs(row: CatalogueRow) -> None:
    classes = ClassMap.build([f"class {index}" for index in range(150)])
    recipe, side = ModelRecipe(config={"model_type": row.name}), SIDES_PX.get(row.name, 512)
    found = [count_millions(build_config(recipe, classes, with_head, 3)) for with_head in (False, True)]
    model = build_on_meta(build_config(recipe, classes, False, 3))
    assert model(torch.zeros(1, 3, side, side, device="meta")).logits.shape[-1] * row.stride == side
    assert found[0] == pytest.approx(row.millions, abs=0.0051)
    assert found[1] == pytest.approx(row.training_millions or row.millions, abs=0.005)


def test_docs_and_terminal_show_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    for table in (render_networks(), render_networks(LIBRARY), render_heads()):
        assert table in page
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert shown == render_list()
    assert all(row.name in shown for row in (*NETWORKS, *HEADS_LISTED, *LIBRARY))
    assert main(["models", "bisenetv2"]) == 0
    assert "model_type: segplus-bisenetv2" in capsys.readouterr().out
    assert main(["models", "fpm"]) == 2
    assert "no model or head 'fpm'\n  fix: did you mean 'fpn'?" in capsys.readouterr().err
