"""The rows of benchmarks/models.py, and what is measured of one, each in a process of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import read_memory_mib, start_peak
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForSemanticSegmentation, PreTrainedModel

from segplus.losses import build_criterion
from segplus.models import lay_out_channels_last, prepare_to_serve
from segplus.models.catalogue import HEADS_LISTED, NETWORKS
from segplus.training.arguments import has_fast_bfloat16

NUM_CLASSES = 11
SIZE_PX = 512
BATCH = 2
_BUDGET_SECONDS = 1.0  # of timed passes a figure, one pass at least
_ENCODER_HEAD = "segplus-encoder-head"
_VIT = {
    "model_type": "vit", "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "image_size": 512,
}  # fmt: skip
_ON_VIT = ("segmenter_mask", "segmenter_linear", "linear_probe", "setr_naive", "setr_pup", "setr_mla")
Result = dict[str, Any]


def list_rows() -> dict[str, dict[str, Any]]:
    """Return the config's values of each row, by the row's name."""
    rows: dict[str, dict[str, Any]] = {"SegFormer-B0": {"model_type": "segformer"}}
    rows |= {row.name: {"model_type": row.name} for row in NETWORKS}
    rows["segplus-ddrnet, 23"] = {"model_type": "segplus-ddrnet", "width": 64, "head_channels": 128}
    for row in HEADS_LISTED:
        encoder = _VIT if row.name in _ON_VIT else {"model_type": "mobilenet_v2"}
        name = f"{row.name} on {'ViT-S/16' if row.name in _ON_VIT else 'MobileNetV2'}"
        rows[name] = {"model_type": _ENCODER_HEAD, "head": row.name, "backbone_config": encoder}
    return rows


def build_row(name: str) -> PreTrainedModel:
    """Return a row's model with random weights, without auxiliary heads."""
    values = dict(list_rows()[name])
    torch.manual_seed(0)
    values |= {"num_labels": NUM_CLASSES} | (
        {} if values["model_type"] == "segformer" else {"use_auxiliary_head": False}
    )
    return AutoModelForSemanticSegmentation.from_config(AutoConfig.for_model(values.pop("model_type"), **values))


def measure_row(name: str) -> Result:
    """Return parameters, multiply-adds, images per second and memory of a row."""
    model = build_row(name).eval()
    image = torch.randn(1, 3, SIZE_PX, SIZE_PX)
    found: Result = {"millions": sum(p.numel() for p in model.parameters()) / 1e6}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    found["giga_multiply_adds"] = counter.get_total_flops() / 2e9
    training = build_training_step(model.train(), (SIZE_PX, SIZE_PX), NUM_CLASSES)
    resident = start_peak()
    found["training_images_per_second"] = BATCH / time_passes(training)
    found["training_mib_an_image"] = (read_memory_mib("VmHWM") - resident) / BATCH
    found["plain_images_per_second"], found["served_images_per_second"] = compare_serving(name, image)
    return found


def compare_serving(name: str, image: torch.Tensor) -> tuple[float, float]:
    """Return images per second of the module as it is, contiguous, and as `predict` prepares it; runs alternate."""
    plain, served = build_row(name).eval(), build_row(name).eval()
    prepare_to_serve(served)
    with torch.inference_mode():
        seconds = [(time_passes(lambda: plain(image)), time_passes(lambda: served(image))) for _ in range(2)]
    return 1 / min(pair[0] for pair in seconds), 1 / min(pair[1] for pair in seconds)


def build_training_step(model: Any, size_px: tuple[int, int], classes: int, *, own: bool = True) -> Callable[[], None]:
    """Return a training step at batch BATCH with the precision, layout and loss of segplus on this CPU.

    Args:
        model: In training mode.
        size_px: Height and width of the crops.
        classes: How many there are.
        own: False is float32, contiguous: the precision of the plain way.
    """
    if own:
        lay_out_channels_last(model)
    criterion = build_criterion({"cross_entropy": 1.0, "dice": 1.0}, classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.randn(BATCH, 3, *size_px)
    labels = torch.randint(0, classes, (BATCH, *size_px))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=own and has_fast_bfloat16()):
            logits = model(pixel_values=images).logits
        criterion(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def build_peer_step(name: str, size_px: tuple[int, int], classes: int, *, bfloat16: bool) -> Callable[[], None]:
    """Return a training step of segmentation_models_pytorch with its own Dice and torch's cross-entropy."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    model = getattr(smp, name)("resnet18", encoder_weights=None, classes=classes).train()
    dice = smp.losses.DiceLoss("multiclass")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.randn(BATCH, 3, *size_px)
    labels = torch.randint(0, classes, (BATCH, *size_px))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = model(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels) + dice(logits.float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


PEERS = {"unet": "Unet", "deeplabv3plus": "DeepLabV3Plus"}
PEER_SIZE_PX = (384, 480)  # 360x480, as the peer takes multiples of 32 alone
PEER_CLASSES = 12
PEER_WAYS = ("peer, float32", "peer, bfloat16", "segplus, float32", "segplus, CPU defaults")


def measure_peer(head: str, way: str) -> Result:
    """Return seconds and memory of a training step of a head on ResNet-18, by one way."""
    if way.startswith("peer"):
        step = build_peer_step(PEERS[head], PEER_SIZE_PX, PEER_CLASSES, bfloat16=way.endswith("bfloat16"))
    else:
        encoder = {"model_type": "resnet", "layer_type": "basic", "depths": [2, 2, 2, 2]}
        encoder |= {"hidden_sizes": [64, 128, 256, 512]}
        stride = {"output_stride": 16} if head == "deeplabv3plus" else {}
        config = AutoConfig.for_model(
            _ENCODER_HEAD, backbone_config=encoder, head=head, num_labels=PEER_CLASSES, **stride
        )
        torch.manual_seed(0)
        model = AutoModelForSemanticSegmentation.from_config(config).train()
        step = build_training_step(model, PEER_SIZE_PX, PEER_CLASSES, own=way.endswith("defaults"))
    resident = start_peak()
    return {"seconds": time_passes(step, budget=4.0), "peak_mib": read_memory_mib("VmHWM") - resident}


def time_passes(run: Callable[[], Any], budget: float = _BUDGET_SECONDS) -> float:
    """Return the seconds of the fastest run after one that does not count, as many as the budget holds."""
    start = time.perf_counter()
    run()
    best, spent = float("inf"), 0.0
    first = time.perf_counter() - start
    while spent < min(budget, max(first, 0.2)) or best == float("inf"):
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        best, spent = min(best, seconds), spent + seconds
    return best


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    kind, *words = sys.argv[1:]
    print("\n" + json.dumps(measure_row(*words) if kind == "row" else measure_peer(*words)))
