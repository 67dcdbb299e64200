"""Checkpoints, recipes and caches that are damaged or want to run code: one message each, and no code runs."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from segplus.data.cache import CachedSplit
from segplus.data.decoding.arrays import load_array, map_array
from segplus.data.statistics import SplitStatistics
from segplus.errors import InputError
from segplus.inference.checkpoint import find_checkpoint
from segplus.models import load_segmentation_checkpoint
from segplus.models.manifest import write_manifest
from segplus.recipe import load_recipe
from segplus.recipe.recipe_file import load_sections
from segplus.training.checkpoints import find_resumable_checkpoint

PICKLED = ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth")


class Payload:
    """Writes a token where it is unpickled."""

    def __init__(self, token: Path) -> None:
        self._token = token

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self._token, "it ran")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Write a checkpoint of training, with a manifest."""
    folder = tmp_path / "checkpoint-5"
    config = SegformerConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, decoder_hidden_size=16, num_attention_heads=[1, 1, 2, 2]
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    for name in PICKLED[1:]:
        torch.save({"state": torch.ones(100)}, folder / name)
    (folder / "trainer_state.json").write_text('{"global_step": 5, "max_steps": 10}')
    write_manifest(folder)
    return folder


def test_code_in_a_checkpoint_or_a_cache_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    pickle.loads(pickle.dumps(Payload(token)))
    assert token.read_text() == "it ran"  # the payload works
    token.unlink()
    for name in PICKLED:
        torch.save(Payload(token), checkpoint / name)
    write_manifest(checkpoint)  # whoever writes the files can write their digests, too
    assert find_resumable_checkpoint(tmp_path) is None
    find_checkpoint(str(checkpoint)).load()
    for name in PICKLED:
        (checkpoint / name).write_bytes(pickle.dumps(Payload(token), protocol=2))
    assert find_resumable_checkpoint(tmp_path) is None
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "manifest.json").unlink()
    for save in (torch.save, lambda payload, path: path.write_bytes(pickle.dumps(payload, protocol=2))):
        save(Payload(token), checkpoint / "pytorch_model.bin")
        with pytest.raises(InputError, match="cannot load"):
            load_segmentation_checkpoint(str(checkpoint))
    planted, array = np.array([Payload(token)], dtype=object), tmp_path / "array.npy"
    np.save(array, planted, allow_pickle=True)
    np.savez(tmp_path / "index.npz", counts=planted)
    index = (tmp_path / "index.npz").read_bytes()
    (tmp_path / "index.json").write_text('{"image_dtype": "uint8", "label_dtype": "uint8"}')
    array.with_name("table.npy").write_bytes(array.read_bytes())
    openings = (
        lambda: load_array(str(array), 100),
        lambda: map_array(str(array)),
        lambda: load_array({"bytes": index, "path": None}, 100),
        lambda: SplitStatistics.unpack(index),
        lambda: CachedSplit(None, tmp_path),
    )
    for opening in openings:
        with pytest.raises(ValueError):
            opening()
    assert not token.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "config.json", "rng_state.pth"])
def test_one_flipped_bit_is_seen(checkpoint: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    older = tmp_path / "checkpoint-3"
    shutil.copytree(checkpoint, older)
    content = bytearray((checkpoint / name).read_bytes())
    content[len(content) // 2] ^= 1
    (checkpoint / name).write_bytes(content)
    assert find_resumable_checkpoint(tmp_path) == older
    assert f"checkpoint-5 is not whole ({name}: " in caplog.text
    if name in ("model.safetensors", "config.json"):
        with pytest.raises(InputError, match=f"damaged\n  found: {name}: "):
            find_checkpoint(str(checkpoint))


def test_a_checkpoint_of_before_manifests_is_used_with_a_warning(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (checkpoint / "manifest.json").unlink()
    assert find_resumable_checkpoint(tmp_path) == checkpoint
    assert "checkpoint-5 has no manifest.json" in caplog.text


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"files": {}}', '{"files": {"../x": {"bytes": 1, "blake2b": ""}}}', '{"files": [1]}']
)
def test_a_damaged_manifest_is_no_manifest(checkpoint: Path, tmp_path: Path, content: str) -> None:
    (checkpoint / "manifest.json").write_text(content)
    assert find_resumable_checkpoint(tmp_path) is None
    with pytest.raises(InputError, match=r"found: manifest.json: damaged"):
        find_checkpoint(str(checkpoint))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a git-lfs pointer"),
        (b"<!doctype html><html>502</html>", "a web page"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", "cannot be read|weights are missing"),
        (b"\xff" * 100, r"cannot be read \(SafetensorError\)"),
    ],
)
def test_weights_that_are_none(checkpoint: Path, content: bytes, found: str) -> None:
    (checkpoint / "manifest.json").unlink()
    (checkpoint / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=found):
        find_checkpoint(str(checkpoint)).load()


@pytest.mark.parametrize(
    ("file", "values", "found"),
    [
        ("preprocessor_config.json", {"size": {"height": 0, "width": 32}}, r"size\n  found"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, r"image_mean\n  found: \[0.5\]"),
        ("preprocessor_config.json", {"image_mean": [0.5, float("nan"), 0.5]}, r"image_mean\n  found"),
        ("preprocessor_config.json", {"image_std": [0.5, 0.0, 0.5]}, r"image_std\n  found"),
        ("preprocessor_config.json", {"rescale_factor": float("inf")}, r"rescale_factor\n  found: inf"),
        ("config.json", {"id2label": {"0": "a", "2": "b"}}, "id2label\n  found: 0, 2"),
        ("config.json", {"id2label": {"x": "a"}}, "cannot load"),
        ("config.json", {"hidden_sizes": "many"}, "cannot load"),
        ("config.json", {"_attn_implementation": "stranger/kernel"}, r"stranger/kernel[\s\S]*--trust-remote-code"),
        ("config.json", {"text_config": {"attn_implementation": {"": "a/b"}}}, "found: a/b"),
    ],
)
def test_values_that_cannot_be(checkpoint: Path, file: str, values: dict, found: str) -> None:
    (checkpoint / "manifest.json").unlink()
    stored = json.loads((checkpoint / file).read_text())
    (checkpoint / file).write_text(json.dumps({**stored, **values}))
    with pytest.raises(InputError, match=found):
        find_checkpoint(str(checkpoint)).load()


def test_weights_with_nan_are_refused(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    weights["decode_head.classifier.bias"][1] = float("nan")
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    write_manifest(checkpoint)
    with pytest.raises(InputError, match="NaN or infinity"):
        find_checkpoint(str(checkpoint)).load()


def test_a_hub_token_in_a_recipe_is_refused_and_not_repeated(tmp_path: Path) -> None:
    token = "hf_" + "aB3" * 11
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data:\n  dataset: https://user:{token}@huggingface.co/datasets/x\n")
    for load in (load_recipe, load_sections):
        with pytest.raises(InputError, match="data.dataset holds a Hub token") as caught:
            load(recipe)
        assert token not in str(caught.value)
    recipe.write_text("data:\n  dataset: x\n")
    with pytest.raises(InputError, match="training.run_name holds a Hub token"):
        load_recipe(recipe, ["--run_name", token])
