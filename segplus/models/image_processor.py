"""The image processor that is saved with the model: what evaluation and the pipeline both use."""

from __future__ import annotations

from typing import Any

from transformers import AutoImageProcessor, BaseImageProcessor, PreTrainedConfig
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from segplus.errors import InputError, suggest
from segplus.models.loading import expand_checkpoint, explain_failures, quiet_transformers
from segplus.recipe import ModelRecipe

# Cropping and padding change the geometry behind the pipeline's back: it stretches the logits over the whole picture.
# Labels are decoded once, by the ClassMap, so the processor never reduces them.
_FIXED = {"do_center_crop": False, "do_pad": False, "do_reduce_labels": False}


def load_image_processor(recipe: ModelRecipe, config: PreTrainedConfig) -> BaseImageProcessor:
    """Return the checkpoint's image processor, or the model type's own, with the recipe's values over it.

    Args:
        recipe: The model section; `image_processor` holds the values.
        config: The model's config, which names the processor where the checkpoint has none.

    Raises:
        InputError: If a key is unknown to the processor, or would serve another geometry than was evaluated.
    """
    with quiet_transformers():
        processor = _load_from_checkpoint(recipe) or _build_from_type(config)
        return _override(processor, recipe.image_processor)


def _load_from_checkpoint(recipe: ModelRecipe) -> BaseImageProcessor | None:
    if recipe.checkpoint is None:
        return None
    checkpoint = expand_checkpoint(recipe.checkpoint)
    try:
        return AutoImageProcessor.from_pretrained(
            checkpoint, revision=recipe.revision or "main", trust_remote_code=recipe.trust_remote_code
        )
    except (OSError, ValueError):
        # A checkpoint without preprocessor_config.json; the model's own weights were found before this is asked.
        return None


def _build_from_type(config: PreTrainedConfig) -> BaseImageProcessor:
    with explain_failures("model.image_processor", config.model_type):
        kinds = IMAGE_PROCESSOR_MAPPING[type(config)]
    # Without torchvision the mapping's PIL entry is the one that works; AutoImageProcessor chooses so, too.
    values = kinds.values() if isinstance(kinds, dict) else kinds
    for kind in values:
        if kind is None:
            continue
        try:
            return kind()
        except ImportError:
            continue
    raise InputError(f"model.image_processor: none is known for {config.model_type}", fix="start from a checkpoint")


def _override(processor: BaseImageProcessor, values: dict[str, Any]) -> BaseImageProcessor:
    settings = processor.to_dict()
    for key, value in values.items():
        if key not in settings and key not in type(processor).valid_kwargs.__annotations__:
            raise InputError(f"model.image_processor: unknown key '{key}'", fix=suggest(key, settings))
        if key in _FIXED and value != _FIXED[key]:
            raise InputError(
                f"model.image_processor.{key}",
                found=value,
                allowed=_FIXED[key],
                fix="resize instead: the pipeline stretches the prediction over the whole picture",
            )
    fixed = {key: value for key, value in _FIXED.items() if key in settings}
    return type(processor).from_dict({**settings, **values, **fixed})
