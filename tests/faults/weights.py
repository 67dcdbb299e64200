"""Weights that are damaged, claim what they do not hold, or are no weights of their model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .checkpoints import choose_verb, replace_file, use_model
from .fault import Case


def damaged_weights(rng: Random) -> Iterator[Case]:
    """Yield a run's own weights, damaged after they were saved: the manifest tells."""

    def damage(seed: int):
        def change(model: Path) -> None:
            path = model / "model.safetensors"
            content, own = bytearray(path.read_bytes()), Random(seed)
            how, start = (
                own.choice(("zero", "flip", "cut", "append", "empty tail")),
                own.randrange(9, len(content) - 600),
            )
            if how == "zero":
                content[start : start + 512] = b"\xff" * 512
            elif how == "flip":
                content[start] ^= 0x40
            elif how == "cut":
                del content[start:]
            else:
                content += b"\x00" * 99
            path.write_bytes(content)

        return change

    while True:
        seed, verb = rng.randrange(10**9), rng.choice(("predict", "predict", "evaluate", "compare"))
        yield Case(
            f"{verb}: weights damaged by seed {seed}",
            use_model(damage(seed), "model.safetensors", verb=verb, manifest=True),
        )


def headers_of_safetensors(rng: Random) -> Iterator[Case]:
    headers: list[bytes] = [
        (2**63).to_bytes(8, "little"), (2**40).to_bytes(8, "little"), (0).to_bytes(8, "little"), (8).to_bytes(8,
        "little") + b"{" * 8,
        (2).to_bytes(8, "little") + b"{}", (4).to_bytes(8, "little") + b"null", (100).to_bytes(8,
        "little") + b"[" * 100,
    ]  # fmt: skip
    claims: list[dict[str, Any]] = [
        {"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}, {"a": {"dtype": "X", "shape": [1],
        "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, {"a": {"dtype": "F32", "shape": [1],
        "data_offsets": [4, 0]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**12]}}, {"a": None}, {"a": {}},
        {"__metadata__": {"format": "x"}},
        {"__metadata__": 7},
    ]  # fmt: skip
    for claim in claims:
        text = json.dumps(claim).encode()
        headers.append(len(text).to_bytes(8, "little") + text + b"\x00" * 4)
    rng.shuffle(headers)
    for content in headers:
        verb = choose_verb(rng)
        yield Case(
            f"{verb}: safetensors {content[:60]!r}",
            use_model(replace_file("model.safetensors", content), "safetensors", verb=verb),
        )


def tensors(rng: Random) -> Iterator[Case]:
    """Weights that are well written and no weights of this model."""

    def edit(change: Callable[[dict[str, torch.Tensor], str], object], key: str):
        def apply(model: Path) -> None:
            held = load_file(model / "model.safetensors")
            name = next(one for one in sorted(held) if key in one)
            change(held, name)
            save_file({k: v.contiguous() for k, v in held.items()}, model / "model.safetensors", {"format": "pt"})

        return apply

    changes: dict[str, Callable[[dict[str, torch.Tensor], str], object]] = {
        "missing": lambda held, name: held.pop(name),
        "of another shape": lambda held, name: held.update({name: torch.zeros(3, 3)}),
        "NaN": lambda held, name: held[name].fill_(float("nan")),
        "infinite": lambda held, name: held[name].fill_(float("inf")),
        "one NaN": lambda held, name: held[name].view(-1)[:1].fill_(float("nan")),
        "all others gone": lambda held, name: [held.pop(one) for one in list(held) if one != name],
    }
    pairs = [(told, key, verb) for told in changes for key in ("decode_head.classifier.weight", "layer_norm", "proj",
    "batch_norm")
             for verb in ("predict", "evaluate", "compare")]  # fmt: skip
    rng.shuffle(pairs)
    for told, key, verb in pairs:
        yield Case(f"{verb}: tensor {key} {told}", use_model(edit(changes[told], key), "safetensors", verb=verb))


def manifests(rng: Random) -> Iterator[Case]:
    """Yield manifests that are none, that list what cannot be, or other files than lie there."""
    entry = {"bytes": 992, "blake2b": "0" * 64}
    values: list[Any] = [
        {}, [], None, 7, "x", {"files": {}}, {"files": []}, {"files": None}, {"files": {"config.json": None}},
        *({"files": {"config.json": {**entry, "bytes": count}}} for count in (math.inf, "x", 10**400, [1], None)),
        {"files": {"config.json": entry}}, {"files": {"../recipe.yaml": entry}}, {"files": {"/etc/passwd": entry}},
        {"files": {"model-2.safetensors": entry}}, {"files": {"config.json": {"bytes": 992}}},
    ]  # fmt: skip
    pairs = [(value, verb) for value in values for verb in ("predict", "evaluate", "compare", "train")]
    rng.shuffle(pairs)
    for value, verb in pairs:
        build = use_model(
            replace_file("manifest.json", json.dumps(value).encode()), "manifest", verb=verb, manifest=True
        )
        yield Case(f"{verb}: manifest.json {json.dumps(value)[:60]}", build)


GENERATORS = (damaged_weights, headers_of_safetensors, tensors, manifests)
