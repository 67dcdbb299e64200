"""The recipes that segplus brings, and what a recipe's keys mean: what `segplus recipes` prints."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from segplus.errors import InputError, suggest
from segplus.recipe.reference import Key, describe_key, explain, list_section, render_reference
from segplus.recipe.schema import build_schema
from segplus.recipe.shipped import describe_recipe, find_recipe, list_recipes


def explain_key(name: str) -> str:
    """Return what a key means; `losses` and a term, such as losses.dice, with the parameters of the terms.

    Raises:
        InputError: If there is no such key or term.
    """
    section, _, term = name.partition(".")
    if section != "losses":
        return describe_key(explain(name))
    from segplus.losses import LOSSES  # torch, which no other key needs

    if term and term not in LOSSES:
        raise InputError(f"no loss '{term}'", fix=suggest(term, LOSSES))
    if not term:
        first = {known: (cls.__doc__ or "").splitlines()[0] for known, cls in LOSSES.items()}
        terms = "\n".join(f"  losses.{known}\n      {line}" for known, line in first.items())
        return f"{describe_key(explain('losses'))}\n\n{terms}"
    cls = LOSSES[term]
    sentence = (cls.__doc__ or "").splitlines()[0]
    return describe_key(Key(name, "weight, or section", "", "", sentence, list_section(cls, name)))


def run(options: argparse.Namespace, _: Sequence[str]) -> int:
    """List the recipes, or do what the action says."""
    if options.action == "show":
        print(find_recipe(options.name).read_text(encoding="utf-8"), end="")
    elif options.action == "explain":
        print(explain_key(options.key))
    elif options.action == "schema":
        print(json.dumps(build_schema(), indent=1))
    elif options.action == "reference":
        print(render_reference(), end="")
    else:
        recipes = {name: describe_recipe(path) for name, path in list_recipes().items()}
        width = max(map(len, recipes))
        print("\n".join(f"{name:{width}}  {sentence}" for name, sentence in recipes.items()))
    return 0
