"""BatchNorm folded for serving: the same logits and label maps, and nothing folded that something else reads."""

from __future__ import annotations

import copy

import pytest
import torch
from architectures import ARCHITECTURES, Architecture
from encoder_heads import build_tiny_model
from torch import nn
from transformers import PreTrainedModel

from segplus.metrics import label_map
from segplus.models import find_batch_norms, fold_batch_norms, prepare_to_serve
from segplus.models.encoder_head_config import EncoderHeadConfig

# How many of a network's BatchNorm layers follow a convolution directly; DDRNet's and PIDNet's pyramids begin with
# BatchNorm, BiSeNets normalise pooled values, ESPNetv2 sums before it normalises.
FOLDED = {"segplus-unet": 10, "segplus-segnet": 7, "segplus-enet": 52, "segplus-bisenetv2": 53, "segplus-ddrnet": 35}


def scatter_statistics(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for norm in find_batch_norms(model):
        norm.running_mean.normal_(0, 0.5, generator=generator)
        norm.running_var.uniform_(0.5, 2.0, generator=generator)
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        nn.init.normal_(norm.bias, 0, 0.2, generator=generator)


def assert_served_alike(model: PreTrainedModel, served: PreTrainedModel) -> None:
    pixel_values = torch.randn(2, 3, 70, 90, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, found = (one(pixel_values).logits for one in (model, served))
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < 2e-5 * float(expected.abs().max())
    differing = label_map(found, (70, 90)) != label_map(expected, (70, 90))
    assert int(differing.sum()) <= 2  # of 12,600: where two classes tie


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda one: one.model_type)
def test_a_network_that_is_prepared_to_serve_gives_the_same_masks(architecture: Architecture) -> None:
    model = architecture.build().eval()
    scatter_statistics(model)
    served = copy.deepcopy(model)
    count = len(find_batch_norms(model))
    folded = prepare_to_serve(served)
    assert len(find_batch_norms(served)) == count - folded
    assert folded == FOLDED.get(architecture.model_type, folded) > count / 2
    assert_served_alike(model, served)


@pytest.mark.parametrize(("head", "encoder"), [("deeplabv3plus", "mobilenet_v2"), ("unet", "resnet"), ("fcn", "swin")])
def test_heads_and_encoders_are_folded_whole(head: str, encoder: str) -> None:
    model = build_tiny_model(head, encoder).eval()
    scatter_statistics(model)
    served = copy.deepcopy(model)
    assert prepare_to_serve(served) == len(find_batch_norms(model)) > 0
    assert find_batch_norms(served) == []
    assert_served_alike(model, served)


class Shared(PreTrainedModel):
    """A convolution that a BatchNorm reads, and the output too: nothing can be folded."""

    config_class = EncoderHeadConfig
    _supports_sdpa = True

    def __init__(self, config: object, repeats: int) -> None:
        super().__init__(config)
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.repeats = repeats

    def forward(self, pixel_values: torch.Tensor) -> object:
        for _ in range(self.repeats):
            features = self.convolution(pixel_values)
            pixel_values = self.norm(features) + (features if self.repeats == 1 else 0)
        return type("Output", (), {"logits": pixel_values})()


@pytest.mark.parametrize("repeats", [1, 2])
def test_what_something_else_reads_or_runs_twice_stays(repeats: int) -> None:
    model = Shared(EncoderHeadConfig(), repeats).eval()
    assert fold_batch_norms(model) == 0
    assert len(find_batch_norms(model)) == 1
