"""The predictor and its protocols: parity with the pipeline, windows, scales, flips, sizes, memory."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation, pipeline
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from segplus.errors import InputError
from segplus.inference import Predictor
from segplus.inference.passes import ScorePass, average_passes, cut_chunks
from segplus.inference.pixel_values import PixelReader, scale_image
from segplus.inference.windows import lay_windows, place_windows
from segplus.metrics import label_map
from segplus.recipe.evaluation_section import ProtocolRecipe

COLORS = torch.tensor([[10, 200, 30], [220, 20, 90], [40, 60, 240], [250, 250, 10]])
SIZES = [(97, 61), (64, 64), (31, 200), (1, 50), (50, 1), (3, 7), (1, 1)]
SLIDING = {"name": "sliding", "window_px": [32, 32]}
PROTOCOLS = {
    "fixed": {},
    "original": {"name": "original"},
    "sliding": SLIDING,
    "uniform": {**SLIDING, "window_px": [32, 64], "overlap": 0.25, "blending": "uniform"},
    "no overlap": {**SLIDING, "overlap": 0.0, "windows_per_batch": 3},
    "large windows": {**SLIDING, "window_px": [256, 256]},
    "flip": {**SLIDING, "flip": True},
    "probabilities": {"name": "original", "flip": True, "average": "probabilities"},
}
AVERAGED = {
    "scales": {"scales": [0.5, 1.0, 1.5], "flip": True},
    "sliding scales": {**SLIDING, "scales": [0.75, 1.25], "average": "probabilities"},
}


class ColorModel(nn.Module):
    """Knows the class of every colour: logits at stride 1, sure of the class to the last bit of a float."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, pixel_values):
        self.sizes.append(tuple(pixel_values.shape[-2:]))
        colors = COLORS.float()[:, :, None, None] / 255
        return SimpleNamespace(logits=-1e4 * (pixel_values[:, None] - colors).square().sum(2))


def build_processor(size=None, **settings):
    if size is None:
        return SegformerImageProcessorPil(do_resize=False, do_normalize=False, **settings)
    return SegformerImageProcessorPil(size={"height": size[0], "width": size[1]}, **settings)


def draw_scene(size, seed=0):
    labels = np.random.default_rng(seed).integers(0, len(COLORS), size)
    return labels, Image.fromarray(COLORS.numpy().astype(np.uint8)[labels])


@pytest.fixture(scope="module")
def segformer():
    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=16, num_labels=5
    )
    model = SegformerForSemanticSegmentation(config).eval()
    nn.init.normal_(model.decode_head.classifier.weight, std=2)
    return model


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_perfect_model_is_right_at_every_pixel(size, name):
    labels, image = draw_scene(size)
    predictor = Predictor(ColorModel(), build_processor(), ProtocolRecipe(**PROTOCOLS[name]))
    np.testing.assert_array_equal(predictor.predict(image).numpy(), labels)
    prediction, confidence = predictor.predict_with_confidence(image)
    np.testing.assert_array_equal(prediction.numpy(), labels)
    assert float(confidence.min()) == 1.0


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", [*PROTOCOLS, *AVERAGED])
def test_images_of_one_colour(size, name):
    image = Image.new("RGB", size[::-1], tuple(COLORS[2].tolist()))
    processor = build_processor((32, 48), do_normalize=False) if name == "scales" else build_processor()
    protocol = ProtocolRecipe(**(PROTOCOLS | AVERAGED)[name])
    labels = Predictor(ColorModel(), processor, protocol).predict(image)
    assert labels.shape == size
    assert labels.unique().tolist() == [2]


@pytest.mark.parametrize("name", [*PROTOCOLS, *AVERAGED])
def test_a_strided_model_takes_any_size(segformer, name):
    """One pixel wide, prime, or of one colour: the labels are the most probable classes, and probabilities sum to 1."""
    predictor = Predictor(segformer, build_processor((64, 96)), ProtocolRecipe(**(PROTOCOLS | AVERAGED)[name]))
    rng = np.random.default_rng(0)
    for size in SIZES:
        noise = Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8))
        for image in (noise, Image.new("RGB", size[::-1], (90, 200, 30))):
            probabilities = predictor.predict_probabilities(image)
            assert probabilities.shape == (5, *size)
            torch.testing.assert_close(probabilities.sum(0), torch.ones(size), atol=1e-5, rtol=0)
            labels, confidence = predictor.predict_with_confidence(image)
            assert torch.equal(labels, predictor.predict(image))
            chosen = probabilities.gather(0, labels.long()[None])[0]
            assert float((probabilities.amax(0) - chosen).max()) <= 1e-5
            torch.testing.assert_close(confidence, probabilities.amax(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(97, 61), (64, 64), (31, 200), (120, 160)], ids=str)
def test_fixed_protocol_is_the_pipeline(segformer, size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))
    processor = build_processor((64, 96))
    served = np.full(size, -1)
    for entry in pipeline("image-segmentation", model=segformer, image_processor=processor)(image):
        served[np.array(entry["mask"]) > 0] = segformer.config.label2id[entry["label"]]
    predictor = Predictor(segformer, processor)
    np.testing.assert_array_equal(predictor.predict(image).numpy(), served)
    assert len(np.unique(served)) > 1
    logits = segformer(**processor(images=[image], return_tensors="pt")).logits
    resized = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(predictor.predict_probabilities(image), resized.softmax(0), atol=1e-5, rtol=0)


def test_a_batch_of_different_sizes(segformer):
    images = [draw_scene(size, seed)[1] for seed, size in enumerate([(40, 60), (33, 20), (64, 96)])]
    predictor = Predictor(segformer, build_processor((64, 96)))
    for one, image in zip(predictor.predict_batch(images), images, strict=True):
        assert float((one == predictor.predict(image)).float().mean()) > 0.999


@pytest.mark.parametrize("window_px", [[64, 96], [256, 256], [128, 96]])
def test_windows_as_large_as_the_image_are_none(segformer, window_px):
    image = draw_scene((61, 90))[1]
    processor = build_processor((64, 96))
    whole = Predictor(segformer, processor, ProtocolRecipe(name="original"))
    windows = Predictor(segformer, processor, ProtocolRecipe(name="sliding", window_px=window_px))
    assert torch.equal(windows.predict_probabilities(image), whole.predict_probabilities(image))
    assert torch.equal(windows.predict(image), whole.predict(image))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("blending", ["gaussian", "uniform"])
def test_streamed_windows_equal_a_slow_blend(segformer, blending, flip):
    image = draw_scene((150, 110))[1]
    protocol = ProtocolRecipe(name="sliding", window_px=[64, 64], overlap=0.4, blending=blending, flip=flip)
    processor = build_processor((64, 64))
    served = processor(images=[image], do_resize=False, return_tensors="pt")["pixel_values"]
    pixel_values = F.pad(served, (0, 18, 0, 10), mode="replicate")
    sums, weights = torch.zeros(5, 40, 32), torch.zeros(40, 32)
    shares = torch.exp(-0.5 * (((torch.arange(16) + 0.5) / 16 - 0.5) * 8) ** 2).clamp_min(1e-3)
    shares = torch.ones(16) if blending == "uniform" else shares
    weight = shares[:, None] * shares
    for top in (0, 32, 64, 96):
        for left in (0, 32, 64):
            window = pixel_values[:, :, top : top + 64, left : left + 64]
            with torch.no_grad():
                scores = segformer(window).logits[0]
                if flip:
                    scores = (scores + segformer(window.flip(-1)).logits[0].flip(-1)) / 2
            sums[:, top // 4 : top // 4 + 16, left // 4 : left // 4 + 16] += scores * weight
            weights[top // 4 : top // 4 + 16, left // 4 : left // 4 + 16] += weight
    resized = F.interpolate((sums / weights)[None], size=(160, 128), mode="bilinear", align_corners=False)
    expected = resized[0, :, :150, :110]
    predictor = Predictor(segformer, processor, protocol)
    torch.testing.assert_close(predictor.predict_probabilities(image), expected.softmax(0), atol=1e-5, rtol=0)
    assert float((predictor.predict(image) == expected.argmax(0)).float().mean()) > 0.9995


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_scales_are_averaged_at_the_images_size(segformer, average):
    image = draw_scene((70, 50))[1]
    processor = build_processor((64, 64))
    total = torch.zeros(5, 70, 50)
    for scale, size in ((0.5, (35, 25)), (1.0, (70, 50)), (2.0, (140, 100))):
        scaled = image if scale == 1 else image.resize(size[::-1], Image.Resampling.BILINEAR)
        padded = [-side % 32 for side in size]
        pixel_values = processor(images=[scaled], do_resize=False, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            scores = segformer(F.pad(pixel_values, (0, padded[1], 0, padded[0]), mode="replicate")).logits
        scores = scores.softmax(1) if average == "probabilities" else scores
        # Where each pixel of the image lies on the grid, written out.
        rows, columns = (
            ((torch.arange(side) + 0.5) * low / side * grid / (low + extra) - 0.5).clamp(0, grid - 1)
            for side, low, extra, grid in zip((70, 50), size, padded, scores.shape[-2:], strict=True)
        )
        top, left = rows.floor().long(), columns.floor().long()
        bottom, right = (top + 1).clamp_max(scores.shape[-2] - 1), (left + 1).clamp_max(scores.shape[-1] - 1)
        down, across = (rows - top)[:, None], columns - left
        upper = torch.lerp(scores[0][:, top][:, :, left], scores[0][:, top][:, :, right], across)
        lower = torch.lerp(scores[0][:, bottom][:, :, left], scores[0][:, bottom][:, :, right], across)
        total += torch.lerp(upper, lower, down)
    expected = total / 3 if average == "probabilities" else (total / 3).softmax(0)
    protocol = ProtocolRecipe(name="original", scales=[0.5, 1.0, 2.0], average=average)
    found = Predictor(segformer, processor, protocol).predict_probabilities(image)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_flip_makes_the_prediction_symmetric(segformer):
    image = draw_scene((64, 96))[1]
    predictor = Predictor(segformer, build_processor((64, 96)), ProtocolRecipe(flip=True))
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    one, two = predictor.predict_probabilities(image), predictor.predict_probabilities(mirrored).flip(-1)
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


@pytest.mark.parametrize("strides", [1, 3, 4, 5])
def test_chunks_join_as_one_grid(strides):
    scores = torch.randn(4, 23, 9, generator=torch.Generator().manual_seed(0))
    covers = (23 * strides, 9 * strides)
    whole = label_map(scores[None], covers)[0, :, : 9 * strides - 1]
    blocks = ((block, 23) for block in scores.split([1, 7, 2, 13], 1))
    chunks = list(cut_chunks(ScorePass(blocks, covers)))
    assert len(chunks) == 4
    assert torch.equal(torch.cat([chunk.find_labels(9 * strides - 1) for chunk in chunks]), whole)
    exact = F.interpolate(scores[None], size=covers, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    rows = torch.cat([scored for chunk in chunks for scored in chunk.interpolate(9 * strides - 1)])
    torch.testing.assert_close(rows, exact[:, :-1], atol=1e-5, rtol=1e-5)
    blocks = ((block, 23) for block in scores.split([1, 7, 2, 13], 1))
    averaged = torch.cat(
        [scored for _, scored in average_passes([ScorePass(blocks, covers)], (23 * strides, 9 * strides))]
    )
    expected = F.interpolate(scores[None], size=covers, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    torch.testing.assert_close(averaged, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("total", [32, 64, 96, 512, 992])
@pytest.mark.parametrize("window", [32, 64, 512])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.99])
def test_windows_cover_every_pixel(total, window, overlap):
    window = min(window, total)
    starts = place_windows(total, window, overlap, 32)
    covered = np.zeros(total, dtype=int)
    for start in starts:
        assert start % 32 == 0
        covered[start : start + window] += 1
    assert covered.min() >= 1
    assert len(starts) == len(set(starts))


def test_only_one_size_reaches_the_model_in_windows():
    model = ColorModel()
    Predictor(model, build_processor(), ProtocolRecipe(**SLIDING)).predict(draw_scene((97, 61))[1])
    assert set(model.sizes) == {(32, 32)}


def test_arrays_of_other_channel_counts():
    array = np.random.default_rng(0).integers(0, 255, (40, 30, 5), dtype=np.uint8)
    reader = PixelReader(SegformerImageProcessorPil(do_resize=False, do_normalize=False))
    values = reader.read_window(array, 32, 0, 32, 32)
    assert values.shape == (1, 5, 32, 32)
    np.testing.assert_allclose(values[0, :, 7, 29].numpy(), array[39, 29] / 255, rtol=1e-6)
    np.testing.assert_allclose(values[0, :, 31, 31].numpy(), array[39, 29] / 255, rtol=1e-6)
    assert scale_image(array, 0.5).shape == (20, 15, 5)
    assert scale_image(array[:1, :1], 0.1).shape == (1, 1, 5)


def test_a_processor_that_crops_is_told_not_to_in_windows():
    processor = build_processor((32, 32), do_normalize=False)
    labels, image = draw_scene((70, 40))
    predictor = Predictor(ColorModel(), processor, ProtocolRecipe(name="original"))
    np.testing.assert_array_equal(predictor.predict(image).numpy(), labels)


class OddModel(nn.Module):
    """A SegFormer whose scores of a window of 64 lie on 13 x 13 steps: no whole stride."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, pixel_values):
        return SimpleNamespace(logits=F.interpolate(self.model(pixel_values).logits, size=(13, 13), mode="bilinear"))


def blend_pixels_slowly(model, pixel_values, tops, lefts, window, shares):
    """Resize each window's scores to its pixels, add them with their weights, and divide."""
    sums = torch.zeros(model.config.num_labels, *pixel_values.shape[-2:], dtype=torch.float64)
    weights = torch.zeros(pixel_values.shape[-2:], dtype=torch.float64)
    for top in tops:
        for left in lefts:
            window_slices = slice(top, top + window), slice(left, left + window)
            with torch.no_grad():
                scores = model(pixel_values=pixel_values[(..., *window_slices)]).logits
            scores = F.interpolate(scores.double(), size=(window, window), mode="bilinear", align_corners=False)[0]
            sums[(..., *window_slices)] += scores * (shares[:, None] * shares)
            weights[window_slices] += shares[:, None] * shares
    return sums / weights


@pytest.mark.parametrize("blending", ["gaussian", "uniform"])
@pytest.mark.parametrize("reason", ["no whole stride", "windows between its steps"])
def test_windows_off_the_models_grid_are_blended_by_pixels(segformer, blending, reason, monkeypatch):
    """Where a window begins between two steps of the model's grid, the grid cannot hold the sums."""
    monkeypatch.setattr("segplus.inference.windows._BLOCK_VALUES", 2000)  # several blocks of rows a window
    size = (150, 110)
    image = draw_scene(size)[1]
    if reason == "no whole stride":
        model, stride_px, total, tops, lefts = OddModel(segformer), 32, (160, 128), (0, 32, 64, 96), (0, 32, 64)
    else:
        model, stride_px, total, tops, lefts = segformer, 2, (150, 110), (0, 38, 76, 86), (0, 38, 46)
    protocol = ProtocolRecipe(
        name="sliding", window_px=[64, 64], overlap=0.4, blending=blending, stride_px=stride_px, windows_per_batch=2
    )
    processor = build_processor((64, 64))
    served = processor(images=[image], do_resize=False, return_tensors="pt")["pixel_values"]
    padded = F.pad(served, (0, total[1] - size[1], 0, total[0] - size[0]), mode="replicate")
    shares = torch.exp(-0.5 * (((torch.arange(64) + 0.5) / 64 - 0.5) * 8) ** 2).clamp_min(1e-3)
    shares = torch.ones(64) if blending == "uniform" else shares
    expected = blend_pixels_slowly(model, padded, tops, lefts, 64, shares)[:, : size[0], : size[1]]
    predictor = Predictor(model, processor, protocol)
    found = predictor.predict_probabilities(image)
    torch.testing.assert_close(found.double(), expected.softmax(0), atol=1e-5, rtol=0)
    labels = predictor.predict(image)
    assert float((labels == expected.argmax(0)).float().mean()) > 0.9995
    again, confidence = predictor.predict_with_confidence(image)
    assert torch.equal(again, labels)
    torch.testing.assert_close(confidence, found.amax(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.0, 0.7])
@pytest.mark.parametrize("name", ["original", "sliding"])
def test_one_scale_alone(name, scale):
    """At twice the size a model of stride 1 has a grid finer than the pixels."""
    image = Image.fromarray(np.kron(draw_scene((6, 5))[0], np.ones((16, 16), int)).astype(np.uint8))
    labels = np.array(image)
    image = Image.fromarray(COLORS.numpy().astype(np.uint8)[labels])
    protocol = ProtocolRecipe(name=name, window_px=[32, 32], scales=[scale])
    predictor = Predictor(ColorModel(), build_processor(), protocol)
    found = predictor.predict(image).numpy()
    inside = np.zeros_like(labels, dtype=bool)
    inside.reshape(6, 16, 5, 16)[:, 4:12, :, 4:12] = True
    np.testing.assert_array_equal(found[inside], labels[inside])
    again, confidence = predictor.predict_with_confidence(image)
    np.testing.assert_array_equal(again.numpy(), found)
    probabilities = predictor.predict_probabilities(image)
    torch.testing.assert_close(confidence, probabilities.amax(0), atol=1e-5, rtol=0)


def test_a_size_that_the_model_refuses_is_one_message():
    class PickyModel(ColorModel):
        def forward(self, pixel_values):
            raise ValueError("only 384 x 384")

    with pytest.raises(InputError, match="only 384 x 384"):
        Predictor(PickyModel(), build_processor()).predict(draw_scene((70, 70))[1])


def test_scales_need_a_size():
    with pytest.raises(InputError, match="no size to scale"):
        Predictor(ColorModel(), build_processor(), ProtocolRecipe(scales=[0.5])).predict(draw_scene((40, 40))[1])


@pytest.mark.parametrize(
    "values",
    [
        {"name": "sliding", "window_px": [100, 64]},
        {"window_px": [64]},
        {"overlap": 1.0},
        {"scales": []},
        {"scales": [0.0]},
        {"stride_px": 0},
        {"windows_per_batch": 0},
    ],
)
def test_protocols_that_cannot_be_are_refused(values):
    with pytest.raises(InputError, match="evaluation.protocol"):
        ProtocolRecipe(**values)


def test_layout_of_windows():
    layout = lay_windows((96, 64), ProtocolRecipe(name="sliding", window_px=[64, 64], overlap=0.5))
    assert (layout.tops, layout.lefts, layout.height, layout.width) == ([0, 32], [0], 64, 64)
    assert lay_windows((96, 64), ProtocolRecipe(name="original")).is_single
