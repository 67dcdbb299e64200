"""What README and docs/ show can be typed: every block and every command by the parser or reader that it is meant for.

What runs as printed is in `test_docs_code.py` (Python) and `test_stories.py` (the worked examples).
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import pkgutil
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import segplus
from segplus.__main__ import build_parser, refuse_unknown_options, split_words
from segplus.errors import InputError
from segplus.recipe import load_recipe
from segplus.recipe.keys import parse_keys

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN = {"text", "csv", "protobuf"}  # folders, output, files of other programs: read, and not typed
ELSEWHERE = {"my_project", "tritonclient"}  # modules that the reader has or installs
SHELL = {"cd", "do", "done", "export", "find", "for", "source"}
PARSER, VERBS = build_parser()
FLAGS = {flag for verb in VERBS.values() for action in verb._actions for flag in action.option_strings}


def read_blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def read_prose(page: Path) -> str:
    """Return a page without its blocks; of the log, which tells of commands as they were, nothing."""
    return "" if page.name == "log.md" else BLOCK.sub("", page.read_text("utf-8"))


def list_commands(page: Path) -> list[list[str]]:
    """Return the words of every command: those of bash blocks, and what stands as a whole command in a sentence."""
    lines = "\n".join(read_blocks(page, "bash")).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`((?:accelerate launch|make|python) [^`]+)`", read_prose(page))
    commands = []
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split, command = True, []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;<>"):
                commands.append(command)
                command = [">"] if word.startswith(">") else []  # what follows is a file
            else:
                command.append(word)
    return [command for command in commands if command and command[0] != ">"]


def check_segplus(words: list[str]) -> None:
    name = words[1]
    own, keys = split_words(words[1:], VERBS[name])
    refuse_unknown_options(name, VERBS[name], keys)
    if name == "train":
        parse_keys(keys)
    _, left = PARSER.parse_known_args(own)
    assert left == [], words


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(words[1:]) <= set(targets), words


def check_python(words: list[str]) -> None:
    """Look for the module or script, and for its options in the source."""
    if words[1] == "-m":
        found = importlib.util.find_spec(words[2])
        assert found is not None, words
        source = Path(found.origin or "")
        source = source.with_name("__main__.py") if source.name == "__init__.py" else source
        if found.origin is None:
            source = ROOT / words[2].replace(".", "/") / "__main__.py"
    else:
        source = ROOT / ("segplus/export/runner.py" if words[1] == "run.py" else words[1])  # run.py is its copy
    text = source.read_text("utf-8")
    assert [word for word in words[2:] if word.startswith("--") and f'"{word}"' not in text] == []


def check_accelerate(words: list[str]) -> None:
    from accelerate.commands.launch import launch_command_parser

    options = launch_command_parser().parse_args(words[2:])
    assert options.config_file is None or (ROOT / options.config_file).is_file()
    assert (options.module, options.training_script) == (True, "segplus")
    check_segplus(["segplus", *options.training_script_args])


def check_pip(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["install"])
    parser.add_argument("packages", nargs="*")
    parser.add_argument("--requirement", type=lambda name: (ROOT / name).read_text("utf-8"))
    parser.add_argument("--editable", choices=["."])
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    for package in parser.parse_args(words[1:]).packages:
        extra = re.escape(package.removeprefix("segplus[").removesuffix("]"))
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), package


CHECKS = {
    "accelerate": check_accelerate,
    "make": check_make,
    "pip": check_pip,
    "python": check_python,
    "python3": check_python,
    "segplus": check_segplus,
}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_says_what_it_is(page: Path) -> None:
    text = page.read_text("utf-8")
    kinds = [kind for kind, _ in BLOCK.findall(text)]
    assert set(kinds) <= {"bash", "python", "yaml"} | SHOWN
    assert text.count("```") == 2 * len(kinds)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_and_option_exists(page: Path) -> None:
    for words in list_commands(page):
        program = words[0].rsplit("/", 1)[-1]
        if program not in SHELL:
            CHECKS[program]([program, *words[1:]])


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_option_in_a_sentence_exists(page: Path) -> None:
    for span in re.findall(r"(?<!`)`((?:segplus [a-z]+|--)[^`]*)`(?!`)", read_prose(page)):
        words = shlex.split(span.replace("|", " "), comments=True)
        if words[0] == "segplus":
            _, keys = split_words(words[1:], VERBS[words[1]])
            refuse_unknown_options(words[1], VERBS[words[1]], keys)
            continue
        for word in words:
            if word.startswith("--") and word not in FLAGS:
                parse_keys([word, "0"])


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_file_and_name_in_a_sentence_exists(page: Path) -> None:
    spans = re.findall(r"(?<!`)`(segplus[./][^`(]+|(?:tests|benchmarks)/[^`]+)(?:\([^`]*\))?`(?!`)", read_prose(page))
    for span in spans:
        if "/" in span:
            assert (ROOT / span).exists(), span
        else:
            pkgutil.resolve_name(span)


def complete(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return lines of a recipe as a whole one: with data and a model."""
    model = recipe.get("model", {})
    if "checkpoint" not in model:
        model = {**model, "config": {"model_type": "segformer", **model.get("config", {})}}
    return {**recipe, "data": {"dataset": "synthetic", **recipe.get("data", {})}, "model": model}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_recipe_loads(page: Path, tmp_path: Path) -> None:
    for block in read_blocks(page, "yaml"):
        recipe = yaml.safe_load(block)
        if "apiVersion" in recipe:
            continue  # of Kubernetes
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(complete(recipe)))
        assert load_recipe(tmp_path / "recipe.yaml").training


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_what_python_imports_exists(page: Path) -> None:
    for block in read_blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in modules:
                top = name.partition(".")[0]
                is_told = top in ELSEWHERE or f"pip install {top}" in page.read_text("utf-8")
                assert is_told or importlib.util.find_spec(top) is not None, name
            if isinstance(node, ast.ImportFrom) and modules[0].partition(".")[0] == "segplus":
                module = importlib.import_module(modules[0])
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_message_on_the_page_is_the_one_that_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(yaml.safe_dump(complete({"training": {"learning_rat": 1e-3}})))
    with pytest.raises(InputError) as caught:
        load_recipe("recipe.yaml")
    assert f"error: {caught.value}\n" in read_blocks(ROOT / "docs" / "reliability.md", "text")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", BLOCK.sub("", page.read_text("utf-8")))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_the_reference_names_what_is_public() -> None:
    page = (ROOT / "docs" / "reference_python.md").read_text("utf-8")
    described = {name.rsplit(".", 1)[1] for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}
    assert described == set(segplus.__all__) - {"IGNORE_INDEX", "LOSSES", "__version__"}


def test_the_readme_is_a_screen_and_a_half() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 75
    assert sum("![" in line for line in lines) == 1
