"""recipe.yaml: the chosen lines first, the defaults after them, and the same run again from either."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from segplus.recipe import format_chosen, format_recipe, load_recipe
from segplus.recipe.shipped import list_recipes

SECTIONS = {
    "data": {"dataset": "synthetic", "seed": 3},
    "model": {"config": {"model_type": "segformer"}},
    "evaluation": {"protocol": {"flip": True, "blending": "gaussian"}},
    "training": {"eval_strategy": "steps", "eval_steps": 5, "seed": 42, "output_dir": "runs/a", "warmup_steps": 0.1},
}


def test_only_what_differs_from_the_defaults_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(SECTIONS))
    chosen = yaml.safe_load(format_chosen(load_recipe(tmp_path / "a.yaml")))
    assert chosen == {
        "data": {"seed": 3},
        "model": {"config": {"model_type": "segformer"}},
        "training": {"output_dir": "runs/a", "warmup_steps": 0.1, "eval_strategy": "steps", "eval_steps": 5},
        "evaluation": {"protocol": {"flip": True}},
    }


def test_chosen_lines_stand_before_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(SECTIONS))
    text = format_recipe(load_recipe(tmp_path / "a.yaml"))
    assert text.startswith("data:\n  seed: 3\n  # defaults\n  dataset: synthetic\n")
    assert "  protocol:\n    flip: true\n    # defaults\n    name: fixed\n" in text
    assert "\n# defaults\ntransforms:\n  preset: standard\n" in text


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_repeated_by_its_whole_and_by_its_chosen_lines(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(list_recipes()[name])
    for text in (format_recipe(recipe), format_chosen(recipe)):
        (tmp_path / "again.yaml").write_text(text)
        assert load_recipe(tmp_path / "again.yaml") == recipe
    assert len(format_chosen(recipe).splitlines()) < len(format_recipe(recipe).splitlines()) / 2
