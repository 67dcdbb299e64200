"""Recipes are strict: keys, types, the command line, and the file that repeats the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from segplus.errors import InputError
from segplus.recipe import load_recipe, load_sections, save_recipe

MINIMAL = {"data": {"dataset": "synthetic"}, "model": {"config": {"model_type": "segformer"}}}
CONFIGS = sorted(p for p in Path("configs").rglob("*.yaml") if "accelerate" not in p.parts)


def write(folder: Path, values: dict) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_recipe_loads_and_is_short(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.training["output_dir"] == f"runs/{path.stem}"
    assert len(path.read_text().splitlines()) <= 30


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_recipe_refuses_a_misspelt_key(path: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(path.read_text())
    values["transfroms"] = {}
    with pytest.raises(InputError, match=r"run.yaml: unknown key 'transfroms'\n  fix: did you mean 'transforms'"):
        load_recipe(write(tmp_path, values))


@pytest.mark.parametrize(
    ("section", "key", "message"),
    [
        ("data", "datset", "unknown key 'data.datset'\n  fix: did you mean 'dataset'"),
        ("model", "chekpoint", "unknown key 'model.chekpoint'\n  fix: did you mean 'checkpoint'"),
        ("training", "learning_rte", "unknown key 'training.learning_rte'\n  fix: did you mean 'learning_rate'"),
        ("training", "label_smoothing_factor", "not for recipes"),
    ],
)
def test_a_misspelt_key_names_file_key_and_nearest(tmp_path: Path, section: str, key: str, message: str) -> None:
    values = {**MINIMAL, section: {**MINIMAL.get(section, {}), key: 1}}
    with pytest.raises(InputError, match=message):
        load_recipe(write(tmp_path, values))


def test_a_number_that_yaml_reads_as_text_becomes_a_number(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(MINIMAL) + "training:\n  learning_rate: 6e-5\n  num_train_epochs: 3\n")
    recipe = load_recipe(path)
    assert recipe.training["learning_rate"] == 6e-5
    assert isinstance(recipe.training["learning_rate"], float)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("training.learning_rate", "fast", "a number"),
        ("training.bf16", "maybe", "true or false"),
        ("model.freeze_encoder", 3, "true or false"),
        ("early_stopping_patience", "1.5", "a whole number"),
        ("loss_engine", "quick", "streamed, plain"),
    ],
)
def test_a_wrong_type_names_key_value_and_what_is_allowed(
    tmp_path: Path, key: str, value: object, allowed: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(write(tmp_path, MINIMAL), [f"--{key}", str(value)])
    assert key in str(caught.value)
    assert str(value) in str(caught.value)
    assert allowed in str(caught.value)


def test_the_command_line_wins(tmp_path: Path) -> None:
    path = write(tmp_path, {**MINIMAL, "training": {"learning_rate": 1.0, "output_dir": "a"}})
    recipe = load_recipe(
        path,
        ["--learning_rate", "2e-4", "--training.output_dir=b", "--losses.dice", "0.5", "--data.seed", "7"],
    )
    assert recipe.training["learning_rate"] == 2e-4
    assert recipe.training["output_dir"] == "b"
    assert recipe.losses == {"dice": 0.5}
    assert recipe.data.seed == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "1"], "stands for several keys\n  allowed: --data.seed, --training.seed"),
        (["--lerning_rate", "1"], "unknown key '--lerning_rate'\n  fix: did you mean 'learning_rate'"),
        (["--learning_rate"], "--learning_rate has no value"),
        (["learning_rate", "1"], "'learning_rate' is not a key"),
    ],
)
def test_a_bad_command_line_is_told(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(write(tmp_path, MINIMAL), arguments)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("learning_rate", "-1", "allowed: a number from 0"),
        ("learning_rate", ".nan", "allowed: a finite number"),
        ("per_device_train_batch_size", "0", "allowed: 1 and more"),
        ("gradient_accumulation_steps", "0", "allowed: 1 and more"),
        ("metric_for_best_model", "mIoU", "did you mean 'mean_iou'"),
        ("head_learning_rate_multiplier", "-1", "allowed: a number from 0"),
        ("prediction_loss_only", "true", "is not for recipes"),
    ],
)
def test_a_number_that_would_end_the_run_later_is_refused(tmp_path: Path, key: str, value: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_recipe(write(tmp_path, MINIMAL), [f"--{key}", value])


def test_text_of_the_command_line_stays_text(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL), ["--data.group_pattern", "[a-z]+(\\d)", "--run_name", "7"])
    assert recipe.data.group_pattern == "[a-z]+(\\d)"
    assert recipe.training["run_name"] == "7"


def test_a_run_without_evaluations_still_saves(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL), ["--eval_strategy", "no"])
    assert recipe.training["save_strategy"] == "epoch"
    assert recipe.training["load_best_model_at_end"] is False
    with pytest.raises(InputError, match="early_stopping_patience: needs evaluations"):
        load_recipe(write(tmp_path, MINIMAL), ["--eval_strategy", "no", "--early_stopping_patience", "2"])


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("data: {dataset: a}\ndata: {dataset: b}\n")
    with pytest.raises(InputError, match="key 'data' stands twice"):
        load_recipe(path)


def test_a_saved_recipe_repeats_the_run(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL), ["--training.output_dir", "x", "--transforms.preset", "light"])
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


def test_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent.yaml: no such file"):
        load_recipe(tmp_path / "absent.yaml")


def test_a_model_without_checkpoint_or_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run.yaml: model: neither a checkpoint nor a config"):
        load_recipe(write(tmp_path, {"data": {"dataset": "synthetic"}, "model": {}}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dta": {"dataset": "my_data"}}, "run.yaml: unknown key 'dta'\n  fix: did you mean 'data'"),
        ({"data": {"dataset": "x"}, "training": {"learning_rat": 1}}, "unknown key 'training.learning_rat'"),
        ({"data": {"dataset": "x"}, "model": {"chekpoint": "y"}}, "unknown key 'model.chekpoint'"),
        ({"data": {"dataset": "x"}, "card": 3}, "card is not a section"),
        ({"data": {"dataset": "x"}, "evaluation": {"protocl": {}}}, "unknown key 'evaluation.protocl'"),
        ({"losses": {"dice": 1.0}}, "run.yaml: key 'data' is missing"),
        ({"data": None}, "data is not a section"),
    ],
)
def test_the_verbs_read_a_recipe_as_strictly_as_training(tmp_path: Path, values: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_sections(write(tmp_path, values))


def test_the_verbs_take_a_recipe_of_the_data_alone(tmp_path: Path) -> None:
    data, _ = load_sections(write(tmp_path, {"data": {"dataset": "here"}, "losses": {"dice": 1.0}}))
    assert data.dataset == "here"


@pytest.mark.parametrize(
    "key", ["training.foo", "training.learning_rate", "losses.dice", "class_weights.a", "model.config.x"]
)
def test_keys_that_a_verb_would_drop_are_refused(key: str) -> None:
    with pytest.raises(InputError, match=f"--{key} has no part in this command\n  allowed: keys of data, evaluation"):
        load_sections(None, [f"--{key}", "1"], "my_data")
