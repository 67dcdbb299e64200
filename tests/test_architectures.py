"""What every architecture of segplus' own keeps: sizes, counts, files, checkpointing, precision, losses, serving."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, Architecture
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoConfig, AutoModel, AutoModelForSemanticSegmentation, TrainingArguments, pipeline

from segplus import models
from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.losses import build_criterion
from segplus.models import freeze_unused_parameters, is_head_parameter, load_image_processor, load_model, widen_model
from segplus.models.architecture import SegmentationNetwork
from segplus.recipe import ModelRecipe
from segplus.training import SegmentationTrainer

CLASSES = ClassMap.build(["road", "car", "tree"])
EACH = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda one: one.model_type)
WITH_HEADS = pytest.mark.parametrize(
    "architecture", [one for one in ARCHITECTURES if one.auxiliary_heads], ids=lambda one: one.model_type
)


def test_every_architecture_has_its_row() -> None:
    registered = {model.config_class.model_type for model in models.ARCHITECTURES}
    elsewhere = {"segplus-encoder-head"}  # its heads and encoders have a table of their own, in encoder_heads.py
    assert registered - elsewhere == {architecture.model_type for architecture in ARCHITECTURES}


@EACH
def test_parameters_count_as_published(architecture: Architecture) -> None:
    for values, millions in architecture.counts:
        with torch.device("meta"):
            model = AutoModelForSemanticSegmentation.from_config(
                AutoConfig.for_model(architecture.model_type, **values)
            )
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.005), values


@EACH
def test_any_size_gives_logits_at_the_stride(architecture: Architecture) -> None:
    model = architecture.build().eval()
    for height, width in ((1, 1), (7, 33), (64, 96), (65, 90)):
        logits = model(torch.randn(1, 3, height, width)).logits
        expected = (1, 3, math.ceil(height / architecture.stride), math.ceil(width / architecture.stride))
        assert logits.shape == expected
        assert torch.isfinite(logits).all()


@EACH
def test_auxiliary_heads_run_in_training_alone_and_go_with_their_config(architecture: Architecture) -> None:
    pixel_values = torch.randn(2, 3, 64, 64)
    model = architecture.build()
    auxiliary = model.train()(pixel_values).auxiliary_logits
    assert len(auxiliary or ()) == architecture.auxiliary_heads
    assert all(logits.shape[:2] == (2, 3) for logits in auxiliary or ())
    served = model.eval()(pixel_values)
    assert served.auxiliary_logits is None
    assert served.boundary_logits is None
    if architecture.auxiliary_heads:
        lean = architecture.build(use_auxiliary_head=False)
        assert lean.train()(pixel_values).auxiliary_logits is None
        lean.load_state_dict({name: v for name, v in model.state_dict().items() if name in lean.state_dict()})
        assert torch.equal(lean.eval()(pixel_values).logits, served.logits)


@EACH
def test_a_batch_of_one_image_trains(architecture: Architecture) -> None:
    model = architecture.build().train()
    model(torch.randn(1, 3, 128, 128)).logits.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@EACH
def test_a_saved_model_is_loaded_to_the_bit(architecture: Architecture, tmp_path: Path) -> None:
    model = architecture.build()
    model.train()(torch.randn(2, 3, 64, 64))  # statistics other than at the start
    model.save_pretrained(tmp_path)
    again, info = AutoModelForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(again) is type(model)
    assert type(AutoModel.from_pretrained(tmp_path)) is type(model)
    pixel_values = torch.randn(1, 3, 65, 90)
    assert torch.equal(again.eval()(pixel_values).logits, model.eval()(pixel_values).logits)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


@EACH
def test_new_weights_of_another_head_are_those_of_a_new_model(architecture: Architecture, tmp_path: Path) -> None:
    architecture.build().save_pretrained(tmp_path)
    classes = ClassMap.build(["road", "car", "tree", "sky", "sign"])
    loaded = load_model(ModelRecipe(checkpoint=str(tmp_path)), classes)
    assert loaded.new_parameters
    assert all(is_head_parameter(loaded.model, name) for name in loaded.new_parameters)
    assert all(torch.isfinite(p).all() for p in loaded.model.parameters())
    assert loaded.model.eval()(torch.randn(1, 3, 64, 64)).logits.shape[1] == 5


def compute_gradients(model: SegmentationNetwork, *, checkpointing: bool) -> tuple[dict[str, torch.Tensor], int]:
    """Return the gradients of a training step in float64, and how often a BatchNorm ran."""
    model = model.double().train()
    if checkpointing:
        # The re-entrant form is asked for where it would lose gradients, and not taken.
        model.activation_checkpointing_enable({"use_reentrant": True})
    runs: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(lambda norm, _: runs.append(norm))
    torch.manual_seed(1)
    outputs = model(torch.randn(2, 3, 64, 64, dtype=torch.float64))
    sum((logits.sin().mean() for logits in (outputs.logits, *(outputs.auxiliary_logits or ()))), 0.0).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, len(runs)


@EACH
def test_gradient_checkpointing_changes_neither_gradients_nor_statistics(architecture: Architecture) -> None:
    plain, checkpointed = architecture.build(), architecture.build()
    expected, runs = compute_gradients(plain, checkpointing=False)
    found, more_runs = compute_gradients(checkpointed, checkpointing=True)
    assert more_runs > 1.3 * runs  # layers were computed again
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert torch.allclose(gradient, found[name], rtol=1e-9, atol=1e-15), name
    for name, buffer in plain.named_buffers():
        assert torch.equal(buffer, checkpointed.get_buffer(name)), name


@EACH
@pytest.mark.parametrize("autocast", [True, False])
def test_a_step_in_bfloat16_is_finite(architecture: Architecture, autocast: bool) -> None:
    model = architecture.build().train()
    pixel_values = torch.randn(2, 3, 64, 64)
    if autocast:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(pixel_values)
    else:
        outputs = model.to(torch.bfloat16)(pixel_values.to(torch.bfloat16))
    build_criterion({"cross_entropy": 1.0}, 3)(outputs.logits, torch.randint(0, 3, (2, 64, 64))).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@EACH
def test_other_channels_are_widened(architecture: Architecture) -> None:
    model = architecture.build().eval()
    wide = widen_model(model, 6).eval()
    pixel_values = torch.randn(1, 3, 64, 64)
    assert wide.config.num_channels == 6
    assert wide(pixel_values.repeat(1, 2, 1, 1)).logits.shape == model(pixel_values).logits.shape


@EACH
def test_units_that_are_not_split_exist_and_every_weight_is_used(architecture: Architecture) -> None:
    model = architecture.build()
    assert set(type(model)._no_split_modules) <= {type(module).__name__ for module in model.modules()}
    assert freeze_unused_parameters(model, (64, 64)) == []
    assert all(module.training for module in model.modules())
    assert any(not is_head_parameter(model, name) for name, _ in model.named_parameters())


@EACH
def test_the_pipeline_segments(architecture: Architecture, tmp_path: Path) -> None:
    recipe = ModelRecipe(
        config={"model_type": architecture.model_type, **architecture.tiny},
        image_processor={"size": {"height": 64, "width": 96}},
    )
    model = load_model(recipe, CLASSES).model
    model.save_pretrained(tmp_path)
    load_image_processor(recipe, model.config).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's, of its image processors
        segment = pipeline("image-segmentation", model=str(tmp_path), device="cpu")
        found = segment(Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)))
    assert {entry["label"] for entry in found} <= set(CLASSES.names)
    assert {entry["mask"].size for entry in found} == {(70, 50)}
    assert sum(int((np.asarray(entry["mask"]) > 0).sum()) for entry in found) == 50 * 70


class RandomImages(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Four images of random pixels and labels in blocks, of which many are ignored."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pixel_values = torch.randn(4, 3, 64, 64, generator=generator)
        blocks = torch.randint(0, 3, (4, 4, 4), generator=generator)
        self.labels = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)
        for number in range(4):
            self.labels[number, number * 15 + 10 :] = 255

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self.pixel_values[index], "labels": self.labels[index], "index": torch.tensor(index)}


def drop_nothing(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0


def train_one_step(model: SegmentationNetwork, folder: Path, batch_size: int, **values: object) -> SegmentationTrainer:
    """Train on the four images once, without moving a weight or a statistic."""
    trainer = SegmentationTrainer(
        model,
        losses=build_criterion({"cross_entropy": 1.0}, 3),
        classes=CLASSES,
        auxiliary_loss_weight=0.3,
        freeze_batch_norm=True,
        args=TrainingArguments(
            output_dir=str(folder),
            use_cpu=True,
            report_to="none",
            max_steps=1,
            logging_steps=1,
            learning_rate=0.0,
            max_grad_norm=0.0,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=4 // batch_size,
            remove_unused_columns=False,
            save_strategy="no",
            disable_tqdm=True,
            train_sampling_strategy="sequential",
            **values,
        ),
        train_dataset=RandomImages(),
    )
    trainer.train()
    return trainer


@WITH_HEADS
def test_auxiliary_losses_are_exact_under_accumulation(architecture: Architecture, tmp_path: Path) -> None:
    lines = []
    for batch_size in (4, 1):
        model = architecture.build()
        drop_nothing(model)
        lines.append(train_one_step(model, tmp_path / str(batch_size), batch_size).state.log_history[0])
    whole, parts = lines
    assert whole["loss/auxiliary/cross_entropy"] > 0.3 * architecture.auxiliary_heads
    exact = ["loss/cross_entropy", "loss/auxiliary/cross_entropy", "loss/boundary_head"]
    for key in [key for key in exact if key in whole]:
        assert whole[key] == pytest.approx(parts[key], rel=1e-5), key
    for line in lines:
        total = line["loss/cross_entropy"] + 0.3 * line["loss/auxiliary/cross_entropy"]
        total += 20 * line.get("loss/boundary_head", 0.0) + line.get("loss/boundary_classes", 0.0)
        assert line["loss"] == pytest.approx(total, rel=1e-4)
    assert ("loss/boundary_head" in whole) == (architecture.model_type == "segplus-pidnet")


def test_labels_and_other_channels_are_refused() -> None:
    model = ARCHITECTURES[0].build()
    with pytest.raises(ValueError, match="UNetForSemanticSegmentation computes no loss"):
        model(torch.randn(1, 3, 64, 64), labels=torch.zeros(1, 64, 64, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"takes pixel_values of shape \(N, 3, H, W\), found \(1, 4, 64, 64\)"):
        model(torch.randn(1, 4, 64, 64))
    assert isinstance(model(torch.randn(1, 3, 64, 64), return_dict=False), tuple)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "segplus-unet", "norm": "layer"}, "norm is one of 'batch', 'none', found 'layer'"),
        ({"model_type": "segplus-unet", "width": "wide"}, "width must be whole numbers from 1, found 'wide'"),
        ({"model_type": "segplus-unet", "widht": 8}, "segplus-unet has no 'widht'\n  fix: did you mean 'width'"),
        ({"model_type": "segplus-unett"}, "did you mean 'segplus-unet'"),
        ({"model_type": "segplus-segnet", "depths": [2, 2]}, "hidden_sizes and depths are as many"),
        ({"model_type": "segplus-enet", "hidden_sizes": [16, 8, 32]}, "three growing multiples of 4"),
        ({"model_type": "segplus-enet", "dropout": 1.5}, "dropout\n  found: 1.5\n  allowed: a share from 0"),
        ({"model_type": "segplus-bisenet", "depths": [2, 2, 2]}, "four numbers each"),
        ({"model_type": "segplus-bisenetv2", "detail_channels": [64, 128]}, "detail_channels are three numbers"),
        ({"model_type": "segplus-bisenetv2", "semantic_channels": [16, 32, 64, 96]}, "both branches end with as many"),
        ({"model_type": "segplus-ddrnet", "depths": []}, "depths must be whole numbers from 1"),
        ({"model_type": "segplus-pidnet", "depths": [2, 2]}, "depths are four numbers"),
        ({"model_type": "segplus-espnetv2", "hidden_sizes": [64, 100, 256]}, "growing multiples of 16"),
    ],
)
def test_values_that_make_no_network_are_told_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(ModelRecipe(config=values), CLASSES)


WITHOUT_SEGPLUS = """
import sys
from pathlib import Path

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "segplus":
            raise ImportError("segplus is not installed here")

sys.meta_path.insert(0, Block())

import torch
from transformers import AutoModelForSemanticSegmentation

for folder in map(Path, sys.argv[1:]):
    try:
        AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        assert "trust_remote_code" in str(error), error
    else:
        raise AssertionError("the checkpoint's code ran without leave")
    model = AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=True)
    model.save_pretrained(folder / "again")
    again = AutoModelForSemanticSegmentation.from_pretrained(folder / "again", trust_remote_code=True).eval()
    outputs = model.train()(torch.load(folder / "batch.pt"))
    logits = again(torch.load(folder / "image.pt")).logits
    torch.save([len(outputs.auxiliary_logits or ()), logits], folder / "found.pt")
assert "segplus" not in sys.modules
"""


def load_without_segplus(architectures: list[Architecture], folder: Path) -> None:
    """Compare what a process without segplus computes with what this one does."""
    expected, folders = [], []
    image, batch = torch.randn(1, 3, 65, 90), torch.randn(2, 3, 64, 64)
    for architecture in architectures:
        own = folder / architecture.model_type
        architecture.build().save_pretrained(own)
        torch.save(image, own / "image.pt")
        torch.save(batch, own / "batch.pt")
        local = AutoModelForSemanticSegmentation.from_pretrained(own, trust_remote_code=True)
        assert type(local).__module__.startswith("segplus.")  # the installed class, where there is one
        expected.append(local.eval()(image).logits)
        folders.append(own)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", WITHOUT_SEGPLUS, *map(str, folders)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for architecture, own, logits in zip(architectures, folders, expected, strict=True):
        heads, found = torch.load(own / "found.pt")
        assert heads == architecture.auxiliary_heads
        assert torch.equal(found, logits), architecture.model_type


@pytest.mark.slow
def test_a_process_without_segplus_loads_every_network(tmp_path: Path) -> None:
    load_without_segplus(list(ARCHITECTURES), tmp_path)


@pytest.mark.slow
@pytest.mark.networks
@EACH
def test_a_compiled_network_gives_the_same_logits(architecture: Architecture) -> None:
    model = architecture.build().eval()
    pixel_values = torch.randn(2, 3, 65, 90)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        compiled = torch.compile(model)(pixel_values).logits
    assert torch.allclose(compiled, model(pixel_values).logits, atol=1e-4)


@pytest.mark.slow
@pytest.mark.networks
@EACH
def test_four_images_are_learned_by_heart(architecture: Architecture, test_data: Path) -> None:
    pixel_values, labels = read_camvid(test_data, architecture.overfits_at)
    model = architecture.build(num_labels=11, **architecture.overfits_with)
    model = model.to(memory_format=torch.channels_last).train()
    drop_nothing(model)
    criterion = build_criterion({"cross_entropy": 1.0}, 11)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=STEPS)
    for _ in range(STEPS):
        outputs = model(pixel_values)
        loss = criterion(outputs.logits, labels)
        for logits in outputs.auxiliary_logits or ():
            loss = loss + 0.4 * criterion(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        logits = model(pixel_values).logits  # with the batch's own statistics, as it learned
    assert measure_mean_iou(logits, labels) > 0.95


STEPS = 400


def read_camvid(test_data: Path, scale: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the labels of four images at 48x64, and the images so many times as large."""
    folder = test_data / "camvid" / "train"
    images, masks = [], []
    for path in sorted((folder / "images").iterdir())[::92][:4]:
        with Image.open(path) as image:
            images.append(
                np.asarray(image.resize((64 * scale, 48 * scale), Image.Resampling.BILINEAR), dtype=np.float32)
            )
        with Image.open(folder / "masks" / f"{path.stem}.png") as mask:
            masks.append(np.asarray(mask.resize((64, 48), Image.Resampling.NEAREST), dtype=np.int64))
    pixel_values = torch.from_numpy(np.stack(images)).movedim(-1, 1) / 64 - 2
    labels = torch.from_numpy(np.stack(masks))
    return pixel_values.contiguous(memory_format=torch.channels_last), labels.masked_fill(labels == 11, 255)


def measure_mean_iou(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the mean over the classes that the labels hold."""
    found = nn.functional.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False).argmax(1)
    valid = labels != 255
    scores = []
    for index in labels[valid].unique():
        both = ((found == index) & (labels == index) & valid).sum()
        either = (((found == index) | (labels == index)) & valid).sum()
        scores.append(float(both / either))
    return sum(scores) / len(scores)
