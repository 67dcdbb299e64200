"""An architecture's code in one file: what goes in, what stays behind, what is refused."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from architectures import ARCHITECTURES

from segplus.models import ARCHITECTURES as CLASSES
from segplus.models.architecture import SegmentationNetwork
from segplus.models.flat_module import build_flat_module, name_flat_module

MODULES = [architecture.__module__ for architecture in CLASSES]


@pytest.mark.parametrize("module_name", MODULES)
def test_no_line_needs_segplus(module_name: str) -> None:
    source = build_flat_module(module_name)
    tree = ast.parse(source)
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in imported} <= set(sys.stdlib_module_names) | {"torch", "transformers"}
    assert source.count("from __future__ import annotations") == 1
    assert "class SegmentationNetwork(PreTrainedModel)" in source
    assert "save_pretrained" not in source
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert len(classes) == len(set(classes))


def test_a_push_asks_for_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[dict[str, object]] = []
    monkeypatch.setattr(SegmentationNetwork, "push_to_hub", lambda _, **options: pushed.append(options))
    model = ARCHITECTURES[0].build()
    model.save_pretrained(tmp_path / "net", push_to_hub=True, token="secret", private=True)
    model.save_pretrained(tmp_path / "net", push_to_hub=True, repo_id="you/net")
    model.save_pretrained(tmp_path / "net")
    assert pushed == [{"repo_id": "net", "token": "secret", "private": True}, {"repo_id": "you/net"}]
    assert (tmp_path / "net" / "modeling_segplus_unet.py").is_file()


def test_the_file_is_named_by_the_model_type() -> None:
    names = {name_flat_module(architecture) for architecture in CLASSES}
    assert "modeling_segplus_bisenetv2" in names
    assert len(names) == len(CLASSES)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("from segplus.errors import InputError", "imports names from segplus.models"),
        ("import segplus.models.architecture", "imports names from segplus.models"),
        ("from segplus.models.architecture import SegmentationOutput as Output", "as they are, found .* as Output"),
        ("from segplus.models.networks.network_layers import Stage\n\n\nclass Stage:\n    pass", "Stage is defined in"),
    ],
)
def test_code_that_cannot_travel_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    name = f"network_{abs(hash(line))}"
    (tmp_path / f"{name}.py").write_text(f'"""A network."""\n\n{line}\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=message):
        build_flat_module(name)
