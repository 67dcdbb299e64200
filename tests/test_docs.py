"""What README and docs/ show can be typed: commands, recipe keys, Python, and links between pages."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import segplus
from segplus.__main__ import build_parser, refuse_unknown_options, split_words
from segplus.recipe.keys import list_keys

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def read_blocks(page: Path, *languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def list_commands(page: Path) -> list[list[str]]:
    lines = "\n".join(read_blocks(page, "bash", "sh", "console")).replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:^|[ /])segplus (.*)", line) for line in lines if "-m segplus.data" not in line]
    return [shlex.split(match[1], comments=True) for match in found if match is not None]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_and_option_exists(page: Path) -> None:
    parser, verbs = build_parser()
    for line in list_commands(page):
        end = next((i for i, word in enumerate(line) if word in (">", ">>", "|", "&&")), len(line))
        own, keys = split_words(line[:end], verbs[line[0]])
        refuse_unknown_options(line[0], verbs[line[0]], keys)
        _, left = parser.parse_known_args(own)
        assert left == [], line


def list_names(section: Any, where: str = "") -> list[str]:
    if not isinstance(section, dict):
        return []
    names = [f"{where}{key}" for key in section]
    return names + [name for key, value in section.items() for name in list_names(value, f"{where}{key}.")]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_recipe_key_exists(page: Path) -> None:
    """Keys whose values are free mappings (a model's config, losses, training arguments) hold names of their own."""
    known = set(list_keys(("",)))
    sections = {key.split(".")[0] for key in known}
    groups = {key[:end] for key in known for end in range(len(key)) if key[end] == "."}
    for block in read_blocks(page, "yaml"):
        recipe = yaml.safe_load(block)
        if not (isinstance(recipe, dict) and sections & set(recipe)):
            continue  # no recipe: a table, or a file of another kind
        for name in list_names(recipe):
            parents = [name[:end] for end in range(len(name)) if name[end] == "."]
            if all(parent in groups for parent in parents):
                assert name in known | groups, name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_is_python(page: Path) -> None:
    for block in read_blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL))
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
