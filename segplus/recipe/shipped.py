"""The recipes that segplus brings: in a wheel inside the package, in a checkout beside it."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from segplus.errors import InputError, suggest
from segplus.texts import is_file

# Settings of accelerate launch lie beside the recipes.
_NO_RECIPES = "accelerate"


def find_recipe_folder() -> Path:
    """Return the folder of the recipes."""
    package = Path(str(importlib.resources.files("segplus")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def list_recipes() -> dict[str, Path]:
    """Return name -> file of the recipes, such as quickstart or camvid/segformer_b0."""
    folder = find_recipe_folder()
    paths = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}
    return {name: path for name, path in paths.items() if name.split("/")[0] != _NO_RECIPES}


def find_recipe(name: str) -> Path:
    """Return the file that a person means: the one at this path, or the recipe of this name.

    Args:
        name: A path, or a name as `list_recipes` gives it, also with configs/ before it and .yaml behind.
    Raises:
        InputError: If there is neither.
    """
    path = Path(name)
    if is_file(path):
        return path
    recipes = list_recipes()
    plain = name.removeprefix("configs/").removesuffix(".yaml")
    if plain in recipes:
        return recipes[plain]
    raise InputError(f"recipe {name}: no such file, and no recipe of segplus", fix=suggest(plain, recipes))


def describe_recipe(path: Path) -> str:
    """Return the sentence that a recipe begins with."""
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()
