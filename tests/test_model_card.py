"""The whole card, its metadata, its licence, and its snippets."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from segplus.errors import InputError
from segplus.recipe import CardRecipe, DataRecipe, ModelRecipe, Recipe
from segplus.reporting.licenses import License, find_license
from segplus.reporting.model_card import ModelCardFacts, render_model_card
from segplus.reporting.results import _find_base_model, hide_folders

GOLDEN = Path(__file__).with_name("model_card_golden.md")
EVALUATION = {
    "images": 1233,
    "mean_iou": 0.600412345,
    "mean_accuracy": 0.71,
    "overall_accuracy": 0.913,
    "mean_dice": 0.72,
    "per_category_iou": [0.91, 0.15, math.nan],
    "per_category_accuracy": [0.95, 0.3, math.nan],
    "per_category_precision": [0.992, 0.214, math.nan],
    "per_category_dice": [0.95, 0.26, math.nan],
    "confusion_matrix": [[900, 11, 0], [7, 3, 0], [0, 0, 0]],
    "intervals": {"mean_iou": [0.58, 0.62]},
}
FACTS = ModelCardFacts(
    name="segformer-b0-camvid",
    model_id="someone/segformer-b0-camvid",
    architecture="SegformerForSemanticSegmentation",
    parameters=3_716_187,
    class_names=["sky", "lane | marking", "car"],
    dataset="someone/camvid",
    dataset_is_on_hub=True,
    evaluation=EVALUATION,
    split="test",
    license=License("other", "base model", None, "https://huggingface.co/nvidia/mit-b0"),
    recipe="model:\n  name: nvidia/mit-b0\nlearning_rate: 0.00006\n",
    base_model="nvidia/mit-b0",
    images=[("pictures/worst 1.png", "worst"), ("pictures/best.png", "best")],
    training={"Steps": 300, "Time": "4 minutes"},
    versions={"segplus": "0.1.0", "torch": "2.13.0"},
)


def test_whole_card() -> None:
    assert render_model_card(FACTS) == GOLDEN.read_text(encoding="utf-8")


def test_metadata_is_what_the_hub_indexes() -> None:
    data = ModelCard(render_model_card(FACTS)).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "image-segmentation"
    assert data.base_model == "nvidia/mit-b0"
    assert data.datasets == ["someone/camvid"]
    assert data.license == "other"
    assert data.model_name == "segformer-b0-camvid"
    results = {result.metric_type: result for result in data.eval_results}
    assert {key: result.metric_value for key, result in results.items()} == {
        "mean_iou": 0.6004,
        "mean_accuracy": 0.71,
        "overall_accuracy": 0.913,
        "mean_dice": 0.72,
    }
    assert results["mean_iou"].dataset_type == "someone/camvid"
    assert results["mean_iou"].dataset_split == "test"
    assert results["mean_iou"].task_type == "image-segmentation"


def test_folders_of_this_machine_stay_out_of_the_metadata() -> None:
    facts = replace(
        FACTS, base_model="mobilenet-v2", base_model_is_on_hub=False, dataset="My Müsli", dataset_is_on_hub=False
    )
    data = ModelCard(render_model_card(facts)).data
    assert data.base_model is None
    assert data.datasets is None
    assert data.eval_results[0].dataset_type == "my-m-sli"
    assert data.eval_results[0].dataset_name == "My Müsli"


def test_folders_of_this_machine_stay_out_of_the_recipe_that_a_card_shows() -> None:
    placed = {
        "data": {
            "dataset": "/home/ann/camvid",
            "cache": "~/cache/camvid",
            "annotations": None,
            "group_pattern": "/(.)",
        },
        "model": {"checkpoint": "C:\\models\\mit-b0"},
        "training": {"output_dir": "/scratch/ann/runs/camvid", "learning_rate": 6e-5},
    }
    shown = yaml.safe_load(hide_folders(yaml.safe_dump(placed)))
    assert shown["data"] == {"dataset": "camvid", "cache": "camvid", "annotations": None, "group_pattern": "/(.)"}
    assert shown["model"] == {"checkpoint": "mit-b0"}
    assert shown["training"] == {"output_dir": "camvid", "learning_rate": 6e-5}


def test_what_names_no_place_on_a_machine_stays_as_it_is() -> None:
    data = {
        "dataset": "${SEGPLUS_DATA}/camvid",
        "classes": ["a", "b"],
        "colors": {"a": [0, 0, 0]},
        "cache": "runs/cache",
    }
    recipe = yaml.safe_dump(
        {"data": data, "model": {"checkpoint": "nvidia/mit-b0"}, "training": {"output_dir": "runs/a"}}, sort_keys=False
    )
    assert hide_folders(recipe) == recipe


def test_scores_that_are_nan_are_left_out_of_the_metadata() -> None:
    nothing = {"mean_iou": math.nan, "per_category_iou": [math.nan] * 3}
    text = render_model_card(replace(FACTS, evaluation=nothing, images=[], training={}, versions={}))
    assert ModelCard(text).data.eval_results is None
    assert "| — | — | — | — | — |" in text
    for heading in ("## Examples", "## Training", "## Versions"):
        assert heading not in text


def test_what_a_person_says_stands_in_the_card() -> None:
    text = render_model_card(replace(FACTS, description="Finds lanes.\n", language=["en"], tags=["vision", "roads"]))
    assert "\n\nFinds lanes.\n\n| Images of the test split" in text
    data = ModelCard(text).data
    assert data.language == ["en"]
    assert data.tags == ["image-segmentation", "semantic-segmentation", "vision", "segplus", "roads"]


def test_a_long_recipe_is_folded() -> None:
    assert "<details>\n<summary>The recipe" in render_model_card(replace(FACTS, recipe="a: 1\n" * 41))


def test_recipe_cannot_break_out_of_its_block() -> None:
    text = render_model_card(replace(FACTS, recipe="note: |\n  ```\n  # not a heading\n"))
    assert "````yaml\nnote: |\n  ```\n  # not a heading\n````\n" in text


@pytest.mark.parametrize(
    ("found", "base_model", "line"),
    [
        (License("apache-2.0", "recipe"), "nvidia/mit-b0", "`apache-2.0`, as the recipe states."),
        (License("mit", "base model"), "a/b", "`mit`, inherited from the base model `a/b`."),
        (License("other", "unknown"), "a/b", "Unknown. The base model `a/b` states no licence that could be read"),
        (
            License("other", "unknown"),
            None,
            "Unknown. No pretrained weights were used, and the recipe names no licence.",
        ),
    ],
)
def test_licence_line(found: License, base_model: str | None, line: str) -> None:
    text = render_model_card(replace(FACTS, license=found, base_model=base_model))
    assert line in text.split("## Licence")[1]
    assert ModelCard(text).data.license == found.identifier


def test_licence_is_read_from_the_base_models_folder(tmp_path: Path) -> None:
    assert find_license(str(tmp_path)) == License("other", "unknown")
    assert find_license(None) == License("other", "unknown")
    (tmp_path / "LICENSE").write_text("   Apache License\n   Version 2.0, January 2004\n")
    assert find_license(str(tmp_path)) == License("apache-2.0", "base model")
    (tmp_path / "LICENSE").write_text("All rights reserved.\n")
    assert find_license(str(tmp_path)) == License("other", "base model")
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: nvidia\nlicense_link: LICENSE\n---\n# x\n")
    assert find_license(str(tmp_path)) == License("other", "base model", "nvidia", "LICENSE")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# x\n")
    assert find_license(str(tmp_path)) == License("mit", "base model")
    assert find_license(str(tmp_path), asked="cc-by-4.0") == License("cc-by-4.0", "recipe")
    (tmp_path / "README.md").write_text("no metadata\n")
    assert find_license(str(tmp_path)) == License("other", "base model")


def test_licence_must_be_an_identifier() -> None:
    with pytest.raises(InputError, match="not an identifier of the Hub"):
        CardRecipe(license="Apache License 2.0")
    assert find_license(None, CardRecipe(license="apache-2.0").license) == License("apache-2.0", "recipe")


def test_repository_root_licence_is_recognised() -> None:
    assert find_license(str(Path(__file__).parents[1])).identifier == "apache-2.0"


def test_python_snippet_of_the_card_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 8],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 1],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
        id2label={0: "sky", 1: "road"},
    )
    SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / "model")
    SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "model")
    Image.new("RGB", (50, 40), (90, 120, 200)).save(tmp_path / "photo.jpg")
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    card = render_model_card(replace(FACTS, model_id="model"))
    snippets = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(snippets) == 1
    exec(compile(snippets[0], "card", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(re.fullmatch(r"(sky|road) \(50, 40\)", line) for line in lines)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["id2label"] == {"0": "sky", "1": "road"}


def test_what_people_wrote_is_shown_and_never_rendered() -> None:
    hostile = "<img src=x onerror=alert(1)> [a](javascript:b) `c` **d** | # _e_ lane_marking ![](//f)"
    facts = replace(
        FACTS,
        name=hostile,
        model_id='runs/a"b`c $(d)',
        class_names=["sky", hostile, f"{hostile}\n# car"],
        dataset=hostile,
        dataset_is_on_hub=False,
        base_model=hostile,
        base_model_is_on_hub=False,
        description=f"First.\n\n---\n{hostile}",
        training={"Machine": hostile},
    )
    body = ModelCard(render_model_card(facts)).text
    prose = re.sub(r"(?ms)^```+\w*\n.*?^```+$|(`+)(?!`).*?(?<!`)\1(?!`)", "", body.replace("\\`", ""))
    assert not re.search(r"(?<!\\)(<img|\[a\]|\*\*d|`|!\[\]|\| #)", prose)
    assert "lane_marking" in prose
    assert r"\<img src=x onerror=alert(1)\>" in prose
    assert 'model="runs/a\\"b`c $(d)")' in body
    assert "segplus predict 'runs/a\"b`c $(d)' photos/ -o masks/" in body
    assert "First.\n\n--- \\<img" in body


def test_weights_of_an_encoder_alone_are_the_base_model() -> None:
    config = {"model_type": "segplus-encoder-head", "backbone": "nvidia/mit-b0", "head": "fpn"}
    recipe = Recipe(data=DataRecipe(dataset="synthetic"), model=ModelRecipe(config=config))
    assert _find_base_model(recipe) == "nvidia/mit-b0"
    whole = replace(recipe, model=ModelRecipe(config={"model_type": "segplus-unet"}))
    assert _find_base_model(whole) is None
