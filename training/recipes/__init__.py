"""The models that are trained here, by the name that `--model` takes."""

from training.recipes.aya_vision import AyaVision
from training.recipes.base import Recipe
from training.recipes.llava_next import LlavaNext

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (LlavaNext(), AyaVision())}

__all__ = ["RECIPES", "Recipe"]
