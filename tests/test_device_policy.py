"""Off the CPU a batch is walked together in few large chunks, and nothing is waited for: numbers, operations, waits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES
from tiny_model import Squares, build_arguments, build_model

from benchmarks.operation_count import count_operations, force_device_policy, measure_alive
from segplus.errors import InputError
from segplus.losses import LOSSES, build_criterion, criterion, upsample
from segplus.training import SegmentationTrainer

CLASSES, LOW = 5, (15, 6)
MIXED = {
    "cross_entropy": {"weight": 0.3, "label_smoothing": 0.1},
    "dice": {"weight": 0.5, "squared": True},
    "focal": {"weight": 0.0},
    "lovasz_softmax": 1.0,
    "boundary": 0.01,
}
CONFIGS = {
    **{term: {term: 1.0} for term in sorted(LOSSES)},
    "several": MIXED,
    "dice per image": {"dice": {"per_image": True}},
    "ohem by threshold": {"ohem_cross_entropy": {"threshold": 0.7, "min_kept": 5}},
}


def draw(high, dtype=torch.float64, images=3):
    """Return logits and blocky labels, a tenth of them ignored."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(images, CLASSES, *LOW, generator=generator, dtype=torch.float64) * 2
    blocks = torch.randint(0, CLASSES, (images, 1, 5, 4), generator=generator).double()
    labels = F.interpolate(blocks, size=high)[:, 0].long()
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    return logits.to(dtype).requires_grad_(), labels


def build(config, **options):
    return build_criterion(config, CLASSES, class_weights=[1.0, 2.0, 0.5, 1.0, 1.0], **options)


def differentiate(config, logits, labels, **options):
    """Return the value and the gradient as one vector."""
    value = build(config, **options)(logits, labels)
    return torch.cat([value.detach()[None], torch.autograd.grad(value, logits)[0].flatten()])


def differentiate_as_on_a_gpu(config, logits, labels):
    with force_device_policy():
        return differentiate(config, logits, labels)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("high", [(60, 12), (56, 23)])
def test_images_walked_together_are_the_plain_way(name, high, monkeypatch):
    monkeypatch.setattr(upsample, "LEAST_DEVICE_BYTES", 0)
    logits, labels = draw(high)
    found = differentiate_as_on_a_gpu(CONFIGS[name], logits, labels)
    expected = differentiate(CONFIGS[name], logits, labels, plain=True)
    assert float((found - expected).norm() / expected.norm()) < 1e-10


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "several"])
def test_float32_is_near_to_float64(name, monkeypatch):
    monkeypatch.setattr(upsample, "LEAST_DEVICE_BYTES", 0)
    logits, labels = draw((60, 12))
    found = differentiate_as_on_a_gpu(CONFIGS[name], *draw((60, 12), torch.float32))
    expected = differentiate(CONFIGS[name], logits, labels, plain=True)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "tversky", "lovasz_softmax", "several"])
@pytest.mark.parametrize("mask", [torch.finfo(torch.float32).min, -torch.inf], ids=["finfo.min", "-inf"])
def test_a_masked_class_is_the_plain_way(name, mask):
    logits, labels = draw((60, 12), torch.float32)
    masked = logits.detach().clone()
    masked[:, -1] = mask
    labels[labels == CLASSES - 1] = 0
    # Smoothing spreads a share of the loss over the masked class, too: its value is as large as what stands for -inf.
    config = {term: values for term, values in CONFIGS[name].items() if term != "cross_entropy" or name != "several"}
    found = differentiate_as_on_a_gpu(config, masked.requires_grad_(), labels)
    expected = differentiate(config, masked, labels, plain=True)
    assert torch.isfinite(found).all()
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    labels[:, 20:30, 3:6] = CLASSES - 1
    assert torch.isfinite(differentiate_as_on_a_gpu(CONFIGS["cross_entropy"], masked, labels)).all()


# Hard pixels are chosen by a number for topk; Lovász reads its classes, sorts a selection of pixels for each, and puts
# slopes there; distances to boundaries are scipy's, on the CPU, for every image or every class of it.
WAITS = {
    "ohem_cross_entropy": {"tolist": 1},
    "lovasz_softmax": {"bincount": 1, "tolist": 1, "index": 1 + 3 * CLASSES, "index_put_": CLASSES},
    "boundary_cross_entropy": {"cpu": 3, "lift_fresh": 3},
    "boundary": {"index": 3, "_unique2": 3, "tolist": 3, "cpu": 2 * 3 * CLASSES, "lift_fresh": 3 * CLASSES},
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_what_is_waited_for(name):
    """By most terms nothing; by the others what is listed, in one forward and backward pass over three images."""
    logits, labels = draw((60, 12), torch.float32)
    loss = build(CONFIGS[name])
    with force_device_policy():
        loss(logits, labels)  # the weights of the rows are kept
        found = count_operations(lambda: loss(logits, labels).backward())
    assert found.waits == WAITS.get(name, {})


def test_what_waits_is_seen():
    logits, labels = draw((60, 12), torch.float32)
    found = count_operations(lambda: differentiate({"cross_entropy": 1.0}, logits, labels))  # on a CPU
    assert found.waits["_local_scalar_dense"] > 0
    assert found.waits["tolist"] == 1
    assert count_operations(lambda: labels[labels > 2].cpu()).waits == {"index": 1, "cpu": 1}


@pytest.mark.parametrize(("name", "most"), [("cross_entropy", 400), ("cross_entropy + dice", 800)])
def test_few_operations_whatever_the_size(name, most, monkeypatch):
    """Sixteen chunks: as many as at 8 images, 150 classes, 128 -> 512, which benchmarks/operations.py counts."""
    monkeypatch.setattr(upsample, "LEAST_DEVICE_BYTES", 0)
    config = {"cross_entropy": 1.0} if name == "cross_entropy" else {"cross_entropy": 1.0, "dice": 1.0}
    counts = []
    for images, classes, side in ((2, 5, 16), (3, 9, 32)):
        logits = torch.randn(images, classes, side, side, requires_grad=True)
        labels = torch.randint(0, classes, (images, 4 * side, 4 * side))
        loss = build_criterion(config, classes)
        with force_device_policy():
            loss(logits, labels).backward()  # the weights of the rows are kept
            counts.append(count_operations(lambda: loss(logits, labels).backward()).operations.total())  # noqa: B023
    assert counts[0] == counts[1] <= most


def test_a_step_holds_a_sixteenth_of_the_upsampled_logits(monkeypatch):
    """And the gradient, as large as the logits: a sixteenth at a scale of four. Maps of the labels are beside them."""
    monkeypatch.setattr(upsample, "LEAST_DEVICE_BYTES", 0)
    images, classes, side = 2, 200, 32
    logits = torch.randn(images, classes, side, side, requires_grad=True)
    labels = torch.randint(0, classes, (images, 4 * side, 4 * side))
    loss = build_criterion({"cross_entropy": 1.0}, classes)
    with force_device_policy():
        loss(logits, labels)
        largest, alive = measure_alive(lambda: loss(logits, labels).backward())
    upsampled = 4 * classes * labels.numel()
    assert largest == upsampled / 16
    assert alive < 3 / 16 * upsampled


@pytest.mark.parametrize("wrong", [CLASSES, 254, -1])
def test_a_label_outside_the_classes_makes_the_value_nan(wrong):
    logits, labels = draw((60, 12))
    labels[1, 3, 4] = wrong
    loss = build_criterion({"cross_entropy": 1.0}, CLASSES)
    with force_device_policy():
        assert loss(logits, labels).isnan()
        labels[1, 3, 4] = 255
        assert loss(logits, labels).isfinite()
    labels[1, 3, 4] = wrong
    with pytest.raises(InputError, match=rf"1 pixels are outside.*\n  found: \[{wrong}\]"):
        loss.check_labels(labels)


def test_matrices_are_multiplied_in_float32_on_a_gpu():
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        with criterion.keep_float32(torch.device("cuda")):
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class CountedTrainer(SegmentationTrainer):
    """Keeps what each training step would wait for."""

    def training_step(self, *arguments, **named):
        step, found = super().training_step, []
        count = count_operations(lambda: found.append(step(*arguments, **named)))
        self.waits = [*getattr(self, "waits", []), dict(count.waits)]
        return found[0]


def build_with_auxiliary_heads():
    (bisenet,) = (one for one in ARCHITECTURES if one.model_type == "segplus-bisenet")
    return bisenet.build(num_labels=4)


@pytest.mark.parametrize("build_network", [build_model, build_with_auxiliary_heads])
def test_a_training_step_waits_once(tmp_path, build_network):
    """For whether the loss is finite: also with two auxiliary heads and a second term there is nothing else."""
    arguments = build_arguments(tmp_path, max_steps=2, save_strategy="no")
    losses = {"cross_entropy": 1.0, "dice": 1.0}
    trainer = CountedTrainer(build_network(), arguments, train_dataset=Squares(16), losses=losses)
    with force_device_policy():
        trainer.train()
    assert trainer.waits[1:] == [{"_local_scalar_dense": 1}]  # the first step computes weights of rows that are kept


def test_a_label_outside_the_classes_ends_a_training(tmp_path):
    data = Squares(16)
    data.labels[:, 5, 5] = 9
    trainer = SegmentationTrainer(build_model(), build_arguments(tmp_path), train_dataset=data)
    with force_device_policy(), pytest.raises(InputError, match=r"8 pixels are outside.*\n  found: \[9\]"):
        trainer.train()
