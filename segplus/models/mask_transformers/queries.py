"""One answer for all families: the classes and masks of the queries, in training after every layer of the decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from segplus.models.mask_transformers.families import is_mask_transformer
from segplus.models.mask_transformers.tasks import make_task_inputs

Layer = tuple[Tensor, Tensor]


@dataclass
class QueryOutput(ModelOutput):
    """What a mask transformer says of its queries: the last layer first, in training the others after it.

    Args:
        class_logits: One tensor a layer, (N, Q, C + 1); the last class is "no object".
        mask_logits: One tensor a layer, (N, Q, h, w), at the model's stride.
    """

    class_logits: tuple[Tensor, ...] | None = None
    mask_logits: tuple[Tensor, ...] | None = None

    @property
    def layers(self) -> list[Layer]:
        """The classes and masks of each layer."""
        assert self.class_logits is not None
        assert self.mask_logits is not None
        return list(zip(self.class_logits, self.mask_logits, strict=True))


@contextmanager
def expose_queries(model: nn.Module) -> Iterator[bool]:
    """Let a mask transformer return a QueryOutput while the block runs; give whether the model is one.

    OneFormer is told its task, the layers that EoMT and MaskFormer supervise inside are brought out, and no model
    computes a loss of its own. Whatever a loss depends on is in what the model returns, where
    DistributedDataParallel looks for it.

    Args:
        model: Any model; one that is no mask transformer, or is exposed already, is left alone.
    """
    if not is_mask_transformer(model) or "_exposes_queries" in vars(model):
        yield is_mask_transformer(model)
        return
    layers: list[Layer] = []

    def ask(module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        layers.clear()
        if module.config.model_type in ("mask2former", "oneformer"):
            named["output_auxiliary_logits"] = module.training
        if module.config.model_type == "oneformer" and "task_inputs" not in named:
            named["task_inputs"] = make_task_inputs(module.config, named["pixel_values"])
        return positional, named

    def answer(module: Any, _: Any, output: Any) -> QueryOutput:
        last = (output.class_queries_logits, output.masks_queries_logits)
        found = [last, *_LIST_LAYERS[module.config.model_type](module, output, layers)] if module.training else [last]
        layers.clear()
        return QueryOutput(*(tuple(part) for part in zip(*found, strict=True)))

    with ExitStack() as stack:
        vars(model)["_exposes_queries"] = True
        stack.callback(vars(model).pop, "_exposes_queries")
        for hook in (
            model.register_forward_pre_hook(ask, with_kwargs=True),
            model.register_forward_hook(answer),
            *_watch_layers(model, layers),
        ):
            stack.callback(hook.remove)
        if "predict" in dir(model):
            stack.enter_context(_watch_predictions(model, layers))
        yield True


def _list_stated(_: Any, output: Any, __: list[Layer]) -> list[Layer]:
    stated = output.get("auxiliary_logits") or output.get("auxiliary_predictions") or ()
    return [(layer["class_queries_logits"], layer["masks_queries_logits"]) for layer in stated]


def _list_predicted(_: Any, __: Any, layers: list[Layer]) -> list[Layer]:
    return layers[:-1]  # the last one is the model's answer


def _list_decoded(model: Any, output: Any, layers: list[Any]) -> list[Layer]:
    """Return MaskFormer's predictions after each layer of its decoder but the last."""
    pixels = output.pixel_decoder_last_hidden_state
    states = [model.model.transformer_module.decoder.layernorm(state) for state in layers[:-1]]
    masks = [torch.einsum("bqc,bchw->bqhw", model.mask_embedder(state), pixels) for state in states]
    return [(model.class_predictor(state), mask) for state, mask in zip(states, masks, strict=True)]


_LIST_LAYERS: dict[str, Callable[[Any, Any, list[Any]], list[Layer]]] = {
    "eomt": _list_predicted,
    "eomt_dinov3": _list_predicted,
    "mask2former": _list_stated,
    "maskformer": _list_decoded,
    "oneformer": _list_stated,
}


def _watch_layers(model: Any, layers: list[Any]) -> list[Any]:
    """Keep what each layer of MaskFormer's decoder gives; nothing of other families."""
    if model.config.model_type != "maskformer":
        return []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        layers.append(output[0] if isinstance(output, tuple) else output)

    return [layer.register_forward_hook(keep) for layer in model.model.transformer_module.decoder.layers]


@contextmanager
def _watch_predictions(model: Any, layers: list[Layer]) -> Iterator[None]:
    """Keep what EoMT predicts before each of the blocks that its queries are in, and at the end."""
    predict = model.predict

    def keep(states: Tensor) -> Layer:
        masks, classes = predict(states)
        layers.append((classes, masks))
        return masks, classes

    model.predict = keep
    try:
        yield
    finally:
        del model.predict
