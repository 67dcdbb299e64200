"""The licence of a fine-tuned model: asked for, inherited from the base model, or honestly unknown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

_BY_TEXT = {
    "apache-2.0": r"Apache License\s+Version 2\.0",
    "mit": r"Permission is hereby granted, free of charge, to any person obtaining a copy",
    "gpl-3.0": r"GNU GENERAL PUBLIC LICENSE\s+Version 3",
    "agpl-3.0": r"GNU AFFERO GENERAL PUBLIC LICENSE\s+Version 3",
    "bsd-3-clause": r"Redistribution and use in source and binary forms[\s\S]*Neither the name",
}


@dataclass(frozen=True)
class License:
    """A licence as the Hub's metadata names it.

    Args:
        identifier: The Hub's identifier, such as apache-2.0; "other" for one that the Hub does not list, or none.
        origin: "recipe", "base model", or "unknown".
        name: Name of a licence that is "other".
        link: Where the text of a licence that is "other" lies.
    """

    identifier: str
    origin: str
    name: str | None = None
    link: str | None = None


def find_license(base_model: str | None, asked: str | None = None) -> License:
    """Return the licence that the recipe asks for, else the base model's, else "other" of unknown origin.

    Args:
        base_model: Hub id or folder of the weights that training began with; None for random weights.
        asked: The recipe's licence identifier, such as apache-2.0.
    """
    if asked is not None:
        return License(asked, "recipe")
    if base_model is None:
        return License("other", "unknown")
    return _read_card(base_model) or _read_text(Path(base_model)) or License("other", "unknown")


def _read_card(base_model: str) -> License | None:
    """Return the licence that the base model's card states; None without a card, a licence, or a way to the Hub."""
    is_folder = Path(base_model).is_dir()
    source = Path(base_model) / "README.md" if is_folder else base_model
    if is_folder and not Path(source).is_file():
        return None
    try:
        data = ModelCard.load(source, ignore_metadata_errors=True).data
    except (HfHubHTTPError, HFValidationError, OSError, ValueError):
        return None
    stated = data.get("license")
    identifier = stated[0] if isinstance(stated, list) and stated else stated
    if not isinstance(identifier, str):
        return None
    if identifier != "other":
        return License(identifier, "base model")
    link = data.get("license_link") or (None if is_folder else f"https://huggingface.co/{base_model}")
    return License("other", "base model", data.get("license_name"), link)


def _read_text(folder: Path) -> License | None:
    """Return the licence whose text lies beside the base model's weights."""
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md"):
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
            matches = [identifier for identifier, pattern in _BY_TEXT.items() if re.search(pattern, text)]
            return License(matches[0] if matches else "other", "base model")
    return None
