"""The list of a checkpoint's files with their digests, written last: what it lists was whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

from segplus.files import write_text

MANIFEST_FILE = "manifest.json"
_THREADS = 4
_CHUNK_BYTES = 1 << 20
# What prediction reads. A checkpoint may be copied without the rest.
_MODEL_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
)


def list_model_files(folder: Path) -> list[Path]:
    """Return the files of a folder that prediction reads: weights, config and image processor."""
    return sorted(path for path in folder.iterdir() if _is_model_file(path.name))


def write_manifest(folder: Path, paths: Iterable[Path] | None = None) -> None:
    """Write the size and digest of files into their folder's manifest.

    Args:
        folder: A checkpoint.
        paths: Files in it; None takes all but hidden ones, which killed writes leave.
    """
    chosen = folder.iterdir() if paths is None else paths
    files = sorted(path for path in chosen if path.is_file() and not path.name.startswith((".", MANIFEST_FILE)))
    entries = {
        path.name: {"bytes": path.stat().st_size, "blake2b": digest}
        for path, digest in zip(files, compute_digests(files), strict=True)
    }
    write_text(folder / MANIFEST_FILE, json.dumps({"files": entries}, indent=1) + "\n")


def find_altered_file(folder: Path, *, model_only: bool = False) -> str | None:
    """Say which file of a checkpoint is not what its manifest says; None where all are, or there is no manifest.

    Args:
        folder: A checkpoint.
        model_only: Look only at what prediction reads.
    """
    manifest = folder / MANIFEST_FILE
    if not manifest.exists():
        return None
    try:
        entries = _read_entries(manifest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return f"{MANIFEST_FILE}: damaged"
    listed = {folder / name: entry for name, entry in entries.items() if not model_only or _is_model_file(name)}
    for path, (size, _) in listed.items():
        if not path.is_file():
            return f"{path.name}: missing"
        if path.stat().st_size != size:
            return f"{path.name}: {path.stat().st_size} bytes, {size} when it was saved"
    for path, digest in zip(listed, compute_digests(listed), strict=True):
        if digest != listed[path][1]:
            return f"{path.name}: its content changed after it was saved"
    return None


def compute_digests(paths: Iterable[Path]) -> list[str]:
    """Return the blake2b digest of each file; hashing leaves Python's lock, so files are read side by side."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(_compute_digest, paths))


def _compute_digest(path: Path) -> str:
    digest, buffer = hashlib.blake2b(digest_size=32), memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def _read_entries(manifest: Path) -> dict[str, tuple[int, str]]:
    entries = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    found = {name: (int(entry["bytes"]), str(entry["blake2b"])) for name, entry in entries.items()}
    if not found or any(Path(name).name != name for name in found):
        raise ValueError("a file outside of the folder, or none")
    return found


def _is_model_file(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _MODEL_FILES)
