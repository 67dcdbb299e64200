"""Dotted paths: what people name in a recipe and wrote themselves, imported."""

from __future__ import annotations

import importlib
from typing import Any

from segplus.errors import InputError, suggest


def import_object(name: str, key: str) -> Any:
    """Return the class, function or object that a dotted path names.

    Args:
        name: Such as package.module.Name; the module is found as Python finds it.
        key: The recipe's key, for messages.
    Raises:
        InputError: If the module cannot be imported, or has no such name.
    """
    module_name, _, attribute = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise InputError(f"{key}: cannot import '{name}'", found=error, fix="give package.module.Name") from None
    try:
        return getattr(module, attribute)  # transformers loads its classes when they are asked for
    except AttributeError:
        known = [word for word in dir(module) if not word.startswith("_")]
        raise InputError(f"{key}: {module_name} has no '{attribute}'", fix=suggest(attribute, known)) from None
