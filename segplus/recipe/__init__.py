"""The run, as data: every question a person answers before training, checked and saved."""

from __future__ import annotations

from segplus.recipe.data_section import DataRecipe
from segplus.recipe.evaluation_section import EvaluationRecipe
from segplus.recipe.postprocess_section import DecisionRecipe, PostprocessRecipe
from segplus.recipe.recipe_file import load_postprocess, load_recipe, load_sections
from segplus.recipe.saved_recipe import format_chosen, format_recipe, save_recipe
from segplus.recipe.sections import CardRecipe, ModelRecipe, OptimizerRecipe, Recipe
from segplus.recipe.strict import build_dataclass
from segplus.recipe.transforms_section import TransformsRecipe

__all__ = [
    "CardRecipe",
    "DataRecipe",
    "DecisionRecipe",
    "EvaluationRecipe",
    "ModelRecipe",
    "OptimizerRecipe",
    "PostprocessRecipe",
    "Recipe",
    "TransformsRecipe",
    "build_dataclass",
    "format_chosen",
    "format_recipe",
    "load_postprocess",
    "load_recipe",
    "load_sections",
    "save_recipe",
]
