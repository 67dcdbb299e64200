"""Code that a checkpoint asks for: run only where a person trusts it."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING

from segplus.errors import InputError

HOW_TO_TRUST = "read that code; if you trust it, say --trust-remote-code, or model.trust_remote_code: true in a recipe"


def refuse_untrusted_code(config: dict[str, Any], key: str, source: str) -> None:
    """Refuse a config whose model is code of its own, or that has code of the Hub compute its attention.

    Args:
        config: A config's values as they stand in its file.
        key: What the message begins with.
        source: Folder or Hub id.
    Raises:
        InputError: If transformers does not know the type of the model, or a kernel of the Hub is named.
    """
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise InputError(
            f"{key}: {source} is a model with code of its own",
            found=f"model_type {config.get('model_type')}",
            fix=HOW_TO_TRUST,
        )
    _refuse_kernels(config, key, source)


def _refuse_kernels(config: dict[str, Any], key: str, source: str) -> None:
    """Refuse a config that has the package `kernels` download code and run it, itself or in a config inside of it."""
    kernel = _find_kernel(config)
    if kernel is not None:
        raise InputError(
            f"{key}: {source} asks for code of the Hub that computes its attention",
            found=kernel,
            allowed="eager, sdpa and others that transformers brings",
            fix=HOW_TO_TRUST,
        )


def _find_kernel(values: object, key: str = "") -> str | None:
    """Return the first implementation in a config, or a config inside of it, that is a repository: owner/name."""
    if isinstance(values, str):
        return values if "_implementation" in key and "/" in values else None
    if not isinstance(values, dict):
        return None
    # An implementation may be a mapping, too: one for each inner config.
    inner = ((key if "_implementation" in key else str(name), value) for name, value in values.items())
    return next((found for name, value in inner if (found := _find_kernel(value, name)) is not None), None)
