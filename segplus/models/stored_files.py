"""What is wrong with a checkpoint's file: seen from its bytes, before a library trips over them or runs them."""

from __future__ import annotations

import json
import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.trainer_pt_utils import safe_globals

from segplus.errors import InputError
from segplus.models.manifest import MANIFEST_FILE, find_altered_file, list_model_files

# What unpickling bytes that are none raises.
_UNREADABLE = (OSError, ValueError, RuntimeError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError)
_UNREADABLE += (AssertionError, MemoryError, struct.error, SafetensorError, pickle.UnpicklingError)  # type: ignore[assignment]


def find_file_damage(path: Path) -> str | None:
    """Say what is wrong with a file of weights, of training state or of JSON; None where it can be read.

    Nothing in the file is run, and no tensor is read: the table of contents stands at one end of it.
    """
    if not path.is_file():
        return "missing" if not path.exists() else "not a file"
    try:
        with path.open("rb") as file:
            start = file.read(64)
        if not start:
            return "empty"
        if start.startswith(b"version https://git-lfs"):
            return "a git-lfs pointer instead of the file; fetch it: git lfs pull"
        if start.lstrip().startswith((b"<!", b"<html")):
            return "a web page instead of the file; download it again"
        if path.suffix in _READERS:
            _READERS[path.suffix](path)
    except _UNREADABLE as error:
        if isinstance(error, pickle.UnpicklingError) and _names_code(path):
            return "it holds code, which is not run"
        return f"cannot be read ({type(error).__name__}); it is damaged or cut short"
    return None


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it holds no JSON, or none that begins with `{`.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(values, dict):
        raise ValueError(f"a {type(values).__name__} instead of a mapping")
    return values


def find_model_damage(folder: Path) -> str | None:
    """Say what is wrong with a folder's weights, config or image processor, or how they differ from its manifest."""
    if not folder.is_dir():
        return "missing"
    for path in list_model_files(folder):
        damage = find_file_damage(path)
        if damage is not None:
            return f"{path.name}: {damage}"
    return find_altered_file(folder, model_only=True)


def refuse_damaged_model(source: str, key: str) -> None:
    """Refuse a folder whose weights, config or image processor are damaged, or not those that its manifest names.

    Args:
        source: Folder, or a Hub id, which is left alone: the Hub's client checks what it downloads.
        key: What the message begins with.
    Raises:
        InputError: With the file and what is wrong with it.
    """
    damage = find_model_damage(Path(source)) if Path(source).is_dir() else None
    if damage is not None:
        raise InputError(
            f"{key} {source}: damaged",
            found=damage,
            fix=f"copy the checkpoint again; where you changed a file yourself, delete {MANIFEST_FILE}",
        )


def find_value_that_is_not_finite(tensors: dict[str, torch.Tensor]) -> str | None:
    """Name the first floating-point tensor that holds NaN or infinity."""
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()}
    if not floats:
        return None
    # One number a tensor, and one wait for the device. min and max carry NaN on, and make no mask of the size.
    extremes = [torch.stack(tensor.detach().aminmax()).float().abs().amax().cpu() for tensor in floats.values()]
    return next((name for name, value in zip(floats, extremes, strict=True) if not math.isfinite(value)), None)


def _names_code(path: Path) -> bool:
    """Return whether a pickled file names functions or classes beyond those that hold tensors."""
    try:
        with safe_globals():
            return bool(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except _UNREADABLE:
        return False


def _open_safetensors(path: Path) -> None:
    with safe_open(path, "pt"):
        pass


def _open_pickled(path: Path) -> None:
    with safe_globals():
        torch.load(path, map_location="cpu", mmap=True, weights_only=True)


_READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": _open_safetensors,
    ".json": read_json_object,
    ".pt": _open_pickled,
    ".pth": _open_pickled,
}
