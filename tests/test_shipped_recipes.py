"""What `segplus recipes` and `segplus new` say: the shipped recipes, every key's reference, the schema."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from segplus.__main__ import main
from segplus.errors import InputError
from segplus.losses import LOSSES
from segplus.recipe import Recipe, load_recipe
from segplus.recipe.keys import list_keys
from segplus.recipe.reference import explain, list_section, render_reference
from segplus.recipe.schema import build_schema
from segplus.recipe.shipped import describe_recipe, find_recipe, list_recipes

ROOT = Path(__file__).parents[1]
SCHEMA = build_schema()
TYPES = {
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "string": str,
    "array": list,
    "object": dict,
    "null": type(None),
}


def find_faults(value: Any, schema: dict[str, Any], where: str = "") -> Iterator[str]:
    """Yield where a value is not as a schema says: the part of JSON Schema that segplus uses."""
    if "anyOf" in schema:
        if all(list(find_faults(value, choice, where)) for choice in schema["anyOf"]):
            yield where
        return
    kind = schema.get("type")
    lacks = any(key not in value for key in schema.get("required", []))
    is_other = kind in TYPES and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"))
    if lacks or is_other or value not in schema.get("enum", [value]):
        yield where
    elif kind == "array":
        for entry in value:
            yield from find_faults(entry, schema["items"], f"{where}[]")
    elif kind == "object":
        others = schema.get("additionalProperties", {})
        for key, entry in value.items():
            known = schema.get("properties", {}).get(key, others)
            yield from [f"{where}.{key}"] if known is False else find_faults(entry, known, f"{where}.{key}")


def test_every_recipe_is_listed_with_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    names = sorted(str(path.relative_to("configs").with_suffix("")) for path in Path("configs").rglob("*.yaml"))
    assert sorted(list_recipes()) == [name for name in names if not name.startswith("accelerate")]
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(list_recipes())
    for path in list_recipes().values():
        assert path.read_text(encoding="utf-8").startswith("# ")
        assert describe_recipe(path).endswith(".")


def test_a_recipe_is_found_by_path_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("quickstart") == find_recipe("configs/quickstart.yaml") == ROOT / "configs" / "quickstart.yaml"
    own = tmp_path / "quickstart"
    own.write_text("data: {}\n")
    assert find_recipe("quickstart").resolve() == own
    with pytest.raises(InputError, match="did you mean 'camvid/segformer_b0'"):
        find_recipe("camvid/segformer_b00")


def test_show_prints_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", "camvid/dpt_small"]) == 0
    assert capsys.readouterr().out == (ROOT / "configs" / "camvid" / "dpt_small.yaml").read_text()


@pytest.mark.parametrize(
    ("key", "lines"),
    [
        ("data.void", ["data.void: list", "  default: []"]),
        ("crop_size_px", ["transforms.crop_size_px: list of whole numbers or null", "  unit: pixels"]),
        ("evaluation.protocol.name", ["evaluation.protocol.name: fixed, original, sliding", "  default: fixed"]),
        ("learning_rate", ["training.learning_rate: number", "  default: 6.0e-05"]),
        ("losses", ["losses: mapping or text", "  losses.lovasz_softmax"]),
        ("losses.dice", ["losses.dice: weight, or section", "  losses.dice.smooth (number, default 1.0)"]),
        ("model", ["model: section", "  model.freeze_encoder (true or false, default false)"]),
    ],
)
def test_explain_tells_type_default_and_unit(capsys: pytest.CaptureFixture[str], key: str, lines: list[str]) -> None:
    assert main(["recipes", "explain", key]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == lines[0]
    assert lines[1] in said


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("data.viod", "no key 'data.viod' in a recipe\n  fix: did you mean 'data.void'?"),
        ("seed", "'seed' stands for several keys"),
        ("losses.dcie", "no loss 'dcie'\n  fix: did you mean 'dice'?"),
        ("training.do_eval", "training.do_eval is not for recipes\n  fix: use training.eval_strategy"),
    ],
)
def test_a_key_that_there_is_not_is_told(capsys: pytest.CaptureFixture[str], key: str, said: str) -> None:
    assert main(["recipes", "explain", key]) == 2
    assert said in capsys.readouterr().err


def test_every_key_and_every_parameter_of_a_loss_has_a_sentence() -> None:
    for name in list_keys(("data", "model", "transforms", "optimizer", "evaluation", "card")):
        assert explain(name).sentence.endswith((".", "...")), name
    for name, term in LOSSES.items():
        for key in list_section(term, name):
            assert key.sentence, key.name


def test_the_page_of_keys_is_the_one_that_the_command_prints() -> None:
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert page == render_reference(), "segplus recipes reference > docs/recipe.md"
    assert all(f"| `{key}` |" in page for key in list_keys(("data", "evaluation")))


def test_the_schema_has_every_section_and_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(SCHEMA))
    hints = typing.get_type_hints(Recipe)
    assert SCHEMA["properties"].keys() == hints.keys()
    for name, section in SCHEMA["properties"].items():
        if dataclasses.is_dataclass(hints[name]):
            assert set(section["properties"]) == {field.name for field in dataclasses.fields(hints[name])}


@pytest.mark.parametrize("name", list_recipes())
def test_the_schema_takes_every_shipped_recipe_and_refuses_a_misspelt_key(name: str) -> None:
    values = yaml.safe_load(list_recipes()[name].read_text(encoding="utf-8"))
    assert list(find_faults(values, SCHEMA)) == []
    assert list(find_faults({**values, "data": {**values["data"], "viod": 1}}, SCHEMA)) == [".data.viod"]
    assert list(find_faults({**values, "loss_engine": "quick"}, SCHEMA)) == [".loss_engine"]
    assert list(find_faults({**values, "training": {"learning_rate": "fast"}}, SCHEMA)) == [".training.learning_rate"]


def test_new_writes_the_proposed_recipe_and_never_over_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "mine.yaml"
    words = ["new", "synthetic", "-o", str(output), "--data.synthetic_images", "{train: 4, validation: 2}"]
    assert main([*words, "--data.synthetic_size_px", "[64, 96]"]) == 0
    assert f"segplus train {output}" in capsys.readouterr().out
    recipe = load_recipe(output)
    assert recipe.data.synthetic_images == {"train": 4, "validation": 2}
    assert recipe.transforms.crop_size_px == [64, 64]
    before = output.read_text()
    assert main(words) == 2
    assert "mine.yaml: is there already" in capsys.readouterr().err
    assert output.read_text() == before


def test_new_says_why_nothing_can_be_proposed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", str(tmp_path / "absent"), "-o", str(tmp_path / "r.yaml")]) == 2
    assert "no recipe can be proposed" in capsys.readouterr().err
    assert not (tmp_path / "r.yaml").exists()
