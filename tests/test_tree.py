"""The tree of modules: a name occurs once, and every folder says what lives there."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1] / "segplus"
TWICE = ["export"]  # the verb, and the folder of what it does


def test_every_module_and_folder_has_a_name_of_its_own() -> None:
    modules = [path.stem for path in ROOT.rglob("*.py") if not path.name.startswith("__")]
    modules.remove("models")  # the verb's; a verb is called as its step is
    folders = [path.parent.name for path in ROOT.rglob("__init__.py")]
    repeated = [name for name, count in Counter(modules + folders).items() if count > 1]
    assert repeated == TWICE


def test_every_folder_says_in_one_sentence_what_lives_there() -> None:
    for path in ROOT.rglob("__init__.py"):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = text.splitlines()[0] if text else ""
        assert first.endswith("."), path
