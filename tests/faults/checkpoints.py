"""Saved models that are damaged, foreign, of another shape, or hostile."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file

from . import files
from .fault import Case, Command, Expected, write_bytes
from .specimen import Place

READ = ("config.json", "model.safetensors", "preprocessor_config.json")
BESIDE = ("metrics.json", "recipe.yaml")


def use_model(change: Callable[[Path], object], *names: str, verb: str = "predict", manifest: bool = False):
    """Return a builder: the data set, the finished run after a change, and a command that uses it.

    Args:
        change: Gets the model's folder.
        names: Words of which the answer holds one.
        verb: predict, evaluate, compare, or train (which starts from the checkpoint).
        manifest: Keep the manifest, so that the change is damage; without one it is somebody's own model.
    """

    def build(place: Place) -> Command:
        place.put_data()
        model = place.put_model(with_manifest=manifest)
        change(model)
        wanted = (*names, "model")
        if verb == "predict":
            return Command("predict", ("model", "data/images", "-o", "out/p"), wanted, results=("out/p/0.png",))
        if verb == "evaluate":
            words = ("model", "data", "-o", "out/e", "--evaluation.bootstrap_resamples", "0")
            return Command("evaluate", words, wanted, results=("out/e/metrics.json",))
        if verb == "compare":
            place.put_model("other")
            words = ("other", "model", "--data", "data", "-o", "out/c", "--evaluation.bootstrap_resamples", "9")
            return Command("compare", words, wanted, results=("out/c/comparison.json",))
        place.put_recipe({"model.config": ..., "model.checkpoint": "./model"})
        return Command("train", ("recipe.yaml",), wanted)

    return build


def choose_verb(rng: Random) -> str:
    """Return a verb that opens a model."""
    return rng.choice(("predict", "predict", "predict", "evaluate", "compare", "train"))


def foreign_files(rng: Random) -> Iterator[Case]:
    """Yield checkpoints of which a file is something else, or is not there."""
    pairs: list[tuple[str, bytes | None, str]] = [
        (told, content, name) for told, content in files.FOREIGN.items() for name in READ
    ]
    pairs += [("missing", None, name) for name in READ]
    rng.shuffle(pairs)
    for told, content, name in pairs:
        verb = choose_verb(rng)
        # Training builds the model type's own image processor where a checkpoint has none.
        lenient = verb == "train" and name == "preprocessor_config.json" and content is None
        yield Case(
            f"{verb}: {name} is {told}",
            use_model(replace_file(name, content), name, verb=verb),
            "either" if lenient else "answered",
        )


def replace_file(name: str, content: bytes | None) -> Callable[[Path], object]:
    """Return a change of a model's folder: a file has this content, or is gone."""

    def change(model: Path) -> None:
        (model / name).unlink()
        if content is not None:
            (model / name).write_bytes(content)

    return change


def values_of_config(rng: Random) -> Iterator[Case]:
    wrong: dict[str, list[Any]] = {
        "id2label": [{}, {"0": "a"}, {"0": "a", "2": "b"}, {"x": "a", "y": "b"}, {"0": None, "1": "b"}, [], None, 7,
        ["a", "b"],
                     {"0": "a", "1": "b", "5": "c"}, {"-1": "a", "0": "b"}, {"0": ["a"], "1": "b"}],
        "model_type": ["x", None, 7, "bert", "", [], "../x"], "architectures": [["BertModel"], "x", 7, [None], [[]],
        ["os.system"]],
        "hidden_sizes": [[8], [], "x", None, [10**9] * 4, [-1, 4, 8, 8]], "num_channels": [4, 0, -1, "x", None, 10**9],
        "depths": [[0], "x", [1, 1]], "decoder_hidden_size": [0, "x", -1], "num_attention_heads": [[0, 1,
        2, 2], "x"],
        "dtype": ["x", 7, "float8"], "_attn_implementation": ["owner/kernel", "x", 7],
        "attn_implementation": ["owner/kernel@main:x"], "hidden_act": ["x", None], "num_labels": [0, -1, "x", 10**9],
        "quantization_config": [{"quant_method": "x"}, {"quant_method": "bitsandbytes", "load_in_8bit": True}, 7, []],
    }  # fmt: skip
    pairs = [(key, value) for key, values in wrong.items() for value in values]
    rng.shuffle(pairs)
    for key, value in pairs:
        verb = rng.choice(("predict", "predict", "evaluate"))
        ignored = (
            key in ("architectures", "dtype", "num_labels", "attn_implementation", "_attn_implementation")
            or value is None
        )
        yield Case(
            f"{verb}: config.json {key}: {json.dumps(value)[:40]}",
            use_model(_set_json("config.json", key, value), "config", "class", "channels", key, verb=verb),
            "either" if ignored else "answered",
        )


def _set_json(name: str, key: str, value: Any) -> Callable[[Path], object]:
    def change(model: Path) -> None:
        content = json.loads((model / name).read_text())
        content[key] = value
        (model / name).write_text(json.dumps(content))

    return change


def values_of_processor(rng: Random) -> Iterator[Case]:
    wrong: dict[str, list[Any]] = {
        "size": [{"height": 0, "width": 0}, {"height": -1, "width": 5}, {}, None, "x", 0, {"height": 10**6,
        "width": 10**6}, [1, 2],
                 {"height": "x", "width": 1}, {"height": 1.5, "width": 2}],
        "image_mean": [[0.5], [], None, "x", [float("nan")] * 3, [float("inf")] * 3, {"a": 1}, ["a", "b", "c"]],
        "image_std": [[0.0, 0.0, 0.0], [1.0], "x", [float("nan")] * 3, [0.5, 0.5, 0.0]],
        "rescale_factor": [float("nan"), float("inf"), "x", None], "resample": [99, "x", -1],
        "image_processor_type": ["x", None, 7, "BertTokenizer", "os.system"], "image_range": [[1], [2, 1], "x",
        [float("nan"), 1], [0, 0]],
    }  # fmt: skip
    pairs = [(key, value) for key, values in wrong.items() for value in values]
    rng.shuffle(pairs)
    for key, value in pairs:
        verb = rng.choice(("predict", "predict", "evaluate"))
        yield Case(
            f"{verb}: preprocessor_config.json {key}: {json.dumps(value)[:40]}",
            use_model(_set_json("preprocessor_config.json", key, value), "processor", key, verb=verb),
            "either" if value is None else "answered",
        )


def texts_of_json(rng: Random) -> Iterator[Case]:
    """JSON that is no JSON, or no object, in every file that a model is read with."""
    texts: dict[str, bytes] = {
        "half": b"", "[]": b"[]", "null": b"null", "7": b"7", "deep": b"[" * 100_000, "NaN": b"NaN",
        "latin-1": b'{"a": "\xe9"}',
        "UTF-16": '{"a": 1}'.encode("utf-16"), "{}": b"{}", "a huge number": b'{"a": ' + b"9" * 5000 + b"}",
    }  # fmt: skip
    pairs = [(told, name) for told in texts for name in ("config.json", "preprocessor_config.json", *BESIDE)]
    rng.shuffle(pairs)
    for told, name in pairs:
        verb = rng.choice(("predict", "evaluate"))
        needed = name in ("config.json", "preprocessor_config.json")
        expected: Expected = "answered" if needed and told != "{}" else "either"
        change = _halve(name) if told == "half" else replace_file(name, texts[told])
        yield Case(f"{verb}: {name} is {told}", use_model(change, name, verb=verb), expected)


def _halve(name: str) -> Callable[[Path], object]:
    return lambda model: (model / name).write_bytes((model / name).read_bytes()[: (model / name).stat().st_size // 2])


class Planted:
    """Unpickled, it makes a folder that no command may make."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, ("planted",)


def code_in_models(rng: Random) -> Iterator[Case]:
    """Code that a model brings is not run: pickles, modules named by config.json, kernels of the Hub."""

    def plant_bin(model: Path) -> None:
        (model / "model.safetensors").unlink()
        (model / "pytorch_model.bin").write_bytes(pickle.dumps(Planted()))

    def plant_saved(model: Path) -> None:
        (model / "model.safetensors").unlink()
        torch.save({"a": Planted()}, model / "pytorch_model.bin")

    def plant_arguments(model: Path) -> None:
        (model / "training_args.bin").write_bytes(pickle.dumps(Planted()))

    def plant_module(model: Path) -> None:
        write_bytes(model / "own.py", 'import os\nos.mkdir("planted")\nclass Config: pass\nclass Model: pass\n')
        names = {"AutoConfig": "own.Config", "AutoModelForSemanticSegmentation": "own.Model"}
        _set_json("config.json", "auto_map", names)(model)
        _set_json("config.json", "model_type", "own")(model)

    def plant_processor(model: Path) -> None:
        write_bytes(model / "own.py", 'import os\nos.mkdir("planted")\nclass Processor: pass\n')
        _set_json("preprocessor_config.json", "auto_map", {"AutoImageProcessor": "own.Processor"})(model)
        _set_json("preprocessor_config.json", "image_processor_type", "Processor")(model)

    changes: dict[str, tuple[Callable[[Path], object], Expected]] = {
        "a bare pickle as pytorch_model.bin": (plant_bin, "answered"),
        "torch.save as pytorch_model.bin": (plant_saved, "answered"),
        "training_args.bin": (plant_arguments, "either"), "auto_map of config.json": (plant_module, "answered"),
        "auto_map of preprocessor_config.json": (plant_processor, "either"),
    }  # fmt: skip
    for told, (change, expected) in changes.items():
        for verb in ("predict", "evaluate", "train"):
            yield Case(f"{verb}: code in {told}", use_model(change, "trust", "pytorch_model.bin", verb=verb), expected)
    del rng


def binary_weights(rng: Random) -> Iterator[Case]:
    for told, content in files.FOREIGN.items():

        def change(model: Path, content: bytes = content) -> None:
            (model / "model.safetensors").unlink()
            (model / "pytorch_model.bin").write_bytes(content)

        verb = choose_verb(rng)
        yield Case(f"{verb}: pytorch_model.bin is {told}", use_model(change, "pytorch_model.bin", verb=verb))
    for told in ("a list", "no tensors", "half"):

        def write(model: Path, told: str = told) -> None:
            held = load_file(model / "model.safetensors")
            (model / "model.safetensors").unlink()
            path = model / "pytorch_model.bin"
            torch.save({"a list": [1], "no tensors": {"a": 1}, "half": held}[told], path)
            if told == "half":
                path.write_bytes(path.read_bytes()[:-2000])

        yield Case(f"predict: pytorch_model.bin holds {told}", use_model(write, "pytorch_model.bin"))


GENERATORS = (foreign_files, values_of_config, values_of_processor, texts_of_json, code_in_models, binary_weights)
