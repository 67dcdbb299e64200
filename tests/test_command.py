"""The `segplus` command: quick helps, options told with the nearest one, keys where they belong."""

from __future__ import annotations

import importlib
import os
import shlex
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import yaml
from launching import ROOT, build_environment, build_launcher, write_recipe

from segplus.__main__ import build_parser, main, split_words
from segplus.commands.options import _PROTOCOLS, EXPORT_FORMATS, MASK_FORMATS, VERBS
from segplus.errors import EXIT_CODE_INPUT
from segplus.export.graphs import FORMATS
from segplus.inference import prediction_files
from segplus.recipe import format_chosen, load_recipe
from segplus.recipe.evaluation_section import ProtocolRecipe

HEAVY = ("torch", "transformers", "numpy", "datasets", "PIL", "scipy", "cv2", "albumentations", "accelerate")


def refuse(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must end with one message, and return it."""
    assert main(words) == EXIT_CODE_INPUT
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    return said


def test_no_help_imports_what_takes_seconds() -> None:
    code = (
        "import sys, segplus, segplus.__main__ as command\n"
        "parser, verbs = command.build_parser()\n"
        "print(len([part.format_help() for part in (parser, *verbs.values())]))\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines() == [str(len(VERBS) + 1), "[]"]


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_a_module_and_a_help_with_examples(name: str) -> None:
    assert callable(importlib.import_module(f"segplus.commands.{name}").run)
    text = build_parser()[1][name].format_help()
    assert text.startswith(f"usage: segplus {name} ")
    assert VERBS[name].purpose in text.replace("\n", " ").lower()
    assert VERBS[name].examples
    assert all(example in text for example in VERBS[name].examples)


@pytest.mark.parametrize("example", [example for verb in VERBS.values() for example in verb.examples])
def test_every_example_is_understood(example: str) -> None:
    words = shlex.split(example.split("segplus ", 1)[1].split(">")[0], comments=True)
    parser, verbs = build_parser()
    own, _ = split_words(words, verbs[words[0]])
    assert parser.parse_args(own).verb == words[0]


def test_words_that_stand_for_choices_elsewhere_are_the_same() -> None:
    assert prediction_files.MASK_FORMATS == MASK_FORMATS
    assert tuple(FORMATS) == EXPORT_FORMATS
    assert typing.get_args(typing.get_type_hints(ProtocolRecipe)["name"]) == _PROTOCOLS


def test_the_first_lines_are_for_users(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines()[2] == "Fine-tune semantic-segmentation models on your own masks."
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == "segplus 0.1.0\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian", "quickstart"], "'trian' is no verb of segplus\n  fix: did you mean 'train'?"),
        (["inspect", "data", "--jsn"], "'--jsn' is no option of segplus inspect\n  fix: did you mean 'json'?"),
        (["evaluate", "m", "d", "--splt", "test"], "'--splt' is no option of segplus evaluate"),
        (["evaluate", "m", "d", "-x"], "'-x' is no option of segplus evaluate"),
        (["folds", "runs", "--data.void", "1"], "'--data.void' is no option of segplus folds"),
        (["predict", "m", "p", "-o", "o", "--layout", "1"], "--layout has no part in this command"),
        (["predict", "m", "p", "-o", "o", "--data.void", "1"], "allowed: keys of evaluation.protocol"),
        (["predict", "m", "p", "-o", "o", "--evaluation.metrics", "[]"], "--evaluation.metrics has no part in"),
        (["inspect", "d", "--evaluation.protocol.flip", "true"], "allowed: keys of data"),
        (
            ["predict", "m", "p", "-o", "o", "--flp", "1"],
            "'--flp' is no option of segplus predict",
        ),
        (["evaluate", "m", "d", "--data.viod", "1"], "unknown key '--data.viod'\n  fix: did you mean 'data.void'?"),
    ],
)
def test_a_word_that_is_wrong_gives_usage_and_the_nearest(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    text = refuse(capsys, *words)
    assert text.startswith("usage: segplus")
    assert said in text


@pytest.mark.parametrize("verb", ["predict model photos", "export model", "new photos", "evaluate model photos"])
def test_an_empty_output_is_not_this_folder(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*verb.split(), "-o", ""])
    assert "argument -o/--output: the path is empty; name a folder" in capsys.readouterr().err


def test_keys_may_stand_anywhere() -> None:
    verb = build_parser()[1]["evaluate"]
    words = ["evaluate", "--data.void", "[11]", "model", "--data.seed=3", "-ofolder", "data", "--split", "test"]
    own, keys = split_words(words, verb)
    assert own == ["evaluate", "model", "-ofolder", "data", "--split", "test"]
    assert keys == ["--data.void", "[11]", "--data.seed=3"]


def test_one_word_too_many_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "data", "more"])
    assert ended.value.code == EXIT_CODE_INPUT
    assert "usage: segplus inspect" in capsys.readouterr().err


def test_train_runs_a_recipe_and_shows_what_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    recipe = write_recipe(tmp_path)
    assert main(["train", "--max_steps", "2", str(recipe), "--losses.dice", "0.25"]) == 0
    saved = tmp_path / "run" / "recipe.yaml"
    lines = saved.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["data:", "  synthetic_images:"]
    shown = (tmp_path / "run" / "README.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(shown)["losses"] == {"cross_entropy": 1.0, "dice": 0.25}
    assert "defaults" not in shown
    assert len(shown.splitlines()) < len(lines) / 2
    assert yaml.safe_load(format_chosen(load_recipe(saved)))["training"]["max_steps"] == 2


def test_train_tells_a_mistake_in_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(write_recipe(tmp_path))
    assert "unknown key '--lerning_rate'\n  fix: did you mean 'learning_rate'" in refuse(
        capsys, "train", recipe, "--lerning_rate", "1"
    )
    assert "fix: did you mean 'quickstart'" in refuse(capsys, "train", "quikstart")


@pytest.mark.slow
def test_two_launched_processes_train(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    command = [*build_launcher(2), "-m", "segplus", "train", str(recipe), "--max_steps", "2"]
    environment = build_environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("report.html lie in") == 1
    metrics = yaml.safe_load((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["training"]["processes"] == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [("segplus insp", ["inspect "]), ("segplus train qu", ["quickstart "]), ("segplus predict --ki", ["--kind "])],
)
def test_a_shell_completes_verbs_options_and_recipes(line: str, expected: list[str], tmp_path: Path) -> None:
    pytest.importorskip("argcomplete")
    answer = tmp_path / "answer"
    answer.touch()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run([sys.executable, "-m", "segplus"], env=environment, check=True, timeout=60)
    assert answer.read_text().split("\n") == expected
