"""Mask transformers: scores as the library serves them, an exact matching loss, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import perfect
import pytest
import torch
from PIL import Image
from tiny_mask_transformers import FAMILIES, SIDE_PX, SPLITTING, TINY, build_model, draw_labels
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BaseImageProcessor,
    PreTrainedModel,
    TrainingArguments,
    pipeline,
)
from transformers.models.eomt.configuration_eomt import EomtConfig
from transformers.models.eomt.image_processing_pil_eomt import EomtImageProcessorPil
from transformers.models.eomt.modeling_eomt import EomtForUniversalSegmentationOutput
from transformers.models.oneformer.configuration_oneformer import OneFormerConfig
from transformers.utils import ModelOutput

from segplus.classes import ClassMap
from segplus.data import load_segmentation_dataset
from segplus.errors import InputError
from segplus.inference import Predictor, evaluate_split
from segplus.inference.checkpoint import find_checkpoint
from segplus.metrics import label_map
from segplus.models import is_head_parameter, load_image_processor, load_model
from segplus.models.mask_transformers import MatchingLoss, compute_scores, expose_queries
from segplus.models.mask_transformers.matching import _hash_label
from segplus.models.mask_transformers.tasks import list_task_ids, make_task_inputs, save_task_tokenizer
from segplus.recipe import EvaluationRecipe, ModelRecipe
from segplus.training import SegmentationTrainer
from segplus.training.annealing import compute_mask_probabilities
from segplus.training.sets import EvaluationSet
from segplus.transforms import EvaluationTransform

CLASSES = ClassMap.build([f"class {index}" for index in range(5)])
SIZES = [(75, 131), (131, 75), (64, 64), (63, 200)]
each_family = pytest.mark.parametrize("model_type", FAMILIES)


def build_processor(model: PreTrainedModel) -> BaseImageProcessor:
    size = {} if model.config.model_type in SPLITTING else {"size": {"height": SIDE_PX, "width": 96}}
    return load_image_processor(ModelRecipe(config=model.config.to_dict(), image_processor=size), model.config)


def draw_image(size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((size[1], size[0]))


# Scores


@each_family
def test_scores_give_the_label_map_that_the_library_gives(model_type: str) -> None:
    model = build_model(model_type)
    processor = build_processor(model)
    predictor = Predictor(model, processor)
    found = set()
    for size in SIZES:
        image = draw_image(size)
        inputs = processor(images=[image], return_tensors="pt")
        if model_type == "oneformer":
            inputs["task_inputs"] = make_task_inputs(model.config, inputs["pixel_values"])
        with torch.no_grad():
            outputs = model(**inputs)
        wanted = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0]
        assert torch.equal(predictor.predict(image).long(), wanted.long()), size
        found |= set(wanted.unique().tolist())
    assert len(found) > 1 or model_type == "eomt_dinov3"


@pytest.mark.parametrize(
    "model_type",
    [
        "eomt",
        "oneformer",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("eomt_dinov3", "mask2former", "maskformer")),
    ],
)
def test_the_pipeline_serves_what_the_predictor_predicts(model_type: str, tmp_path: Path) -> None:
    model = build_model(model_type)
    trainer = SegmentationTrainer(
        model, TrainingArguments(str(tmp_path), report_to="none", use_cpu=True), processing_class=build_processor(model)
    )
    trainer.save_model()
    loaded = find_checkpoint(str(tmp_path)).load()
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weight.float()), name  # one is made of a float64 of NumPy
    segment = pipeline("image-segmentation", model=str(tmp_path))
    for size in SIZES[1:2]:
        served = np.full(size, 255)
        for region in segment(draw_image(size), subtask="semantic"):
            served[np.asarray(region["mask"]) > 0] = model.config.label2id[region["label"]]
        labels, confidence = loaded.predict_with_confidence(draw_image(size))
        assert np.array_equal(served, labels.numpy())
        assert 0.199 <= float(confidence.min()) <= float(confidence.max()) <= 1


def test_the_saved_tokenizer_knows_the_task(tmp_path: Path) -> None:
    save_task_tokenizer(tmp_path, 77)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    ids = saved(["the task is semantic"], padding="max_length", max_length=77)["input_ids"][0]
    assert ids == list_task_ids(77) == [49406, 518, 10549, 533, 29119, 1550, 49407] + [0] * 70


class TruthfulQueries(PreTrainedModel):
    """A query a class, whose mask is read from the grey levels of `perfect`."""

    def __init__(self, config: OneFormerConfig | EomtConfig) -> None:
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, pixel_values: torch.Tensor, **_: object) -> ModelOutput:
        count = self.config.num_labels
        level = (pixel_values[:, :1] * 255 / perfect.STEP).round()
        masks = torch.where(level == torch.arange(count).view(1, -1, 1, 1), 50.0, -50.0)
        classes = torch.full((count, count + 1), -50.0).fill_diagonal_(50.0).expand(len(masks), -1, -1)
        return EomtForUniversalSegmentationOutput(class_queries_logits=classes, masks_queries_logits=masks * self.scale)


@pytest.mark.parametrize(
    ("config_class", "sizes"),
    [
        (OneFormerConfig, [(37, 53), (41, 29), (16, 61), (53, 37)]),
        (EomtConfig, [(16, 61), (53, 16), (16, 16), (16, 33)]),
    ],
)
@pytest.mark.parametrize("kind", ["reduced", "void"])
def test_truthful_queries_score_exactly_one(config_class: type, sizes: list, kind: str, tmp_path: Path) -> None:
    perfect.write_images(tmp_path / "data", sizes, 5, kind=kind)
    meaning = {"reduced": {"reduce_labels": True}, "void": {"void": [5]}}[kind]
    given = {"dataset": str(tmp_path / "data"), "classes": list(CLASSES.names), "validation_share": 0.5, **meaning}
    data = load_segmentation_dataset(given)
    side = {"image_size": 16} if config_class is EomtConfig else {}
    model = TruthfulQueries(config_class(id2label=CLASSES.id2label, num_queries=5, **side))
    processor = EomtImageProcessorPil(
        do_resize=False, image_mean=[0.0] * 3, image_std=[1.0] * 3, size={"shortest_edge": 16}, do_split_image=True
    )
    trainer = SegmentationTrainer(
        model,
        TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, per_device_eval_batch_size=1),
        eval_dataset=EvaluationSet(data.splits["validation"], EvaluationTransform(processor)),
        classes=data.classes,
    )
    assert trainer.evaluate()["eval_mean_iou"] == 1.0
    evaluator = evaluate_split(
        Predictor(model, processor), data.splits["validation"], data.classes, EvaluationRecipe(), progress=False
    )
    assert evaluator.compute()["mean_iou"] == 1.0


# The loss


def compute_library_loss(model: PreTrainedModel, pixel_values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the library's own loss of one image."""
    classes = labels.unique()
    task = {}
    if model.config.model_type == "oneformer":
        task["task_inputs"] = make_task_inputs(model.config, pixel_values)
    masks = (labels == classes[:, None, None]).float()
    return model(pixel_values=pixel_values, mask_labels=[masks], class_labels=[classes], **task).loss


@each_family
def test_the_loss_of_one_image_is_the_library_s_own(model_type: str) -> None:
    model, labels = build_model(model_type), draw_labels(1, 4)
    pixel_values = torch.randn(1, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(0))
    if model_type in SPLITTING:
        model.attn_mask_probs.zero_()  # then the library supervises the last layer alone
    criterion = MatchingLoss(model.config, 255)
    with torch.no_grad(), expose_queries(model):
        model.training = model_type in ("mask2former", "oneformer")  # these return their other layers
        mine = criterion(model(pixel_values=pixel_values), labels)
    model.eval()
    torch.manual_seed(_hash_label(labels[0]) ^ criterion.key)  # the library draws its points from the global generator
    with torch.no_grad():
        wanted = compute_library_loss(model, pixel_values, labels)
    torch.testing.assert_close(mine, wanted.squeeze(), rtol=1e-5, atol=0)


def run_in_training(model: PreTrainedModel, pixel_values: torch.Tensor) -> ModelOutput:
    model.train()
    with expose_queries(model):
        return model(pixel_values=pixel_values)


@each_family
def test_shares_of_a_batch_add_up_to_the_batch(model_type: str) -> None:
    model, labels = build_model(model_type), draw_labels(8, 5)
    labels[2] = 1  # one class alone
    labels[3, 5:] = 255
    labels[4] = 255
    pixel_values = torch.randn(8, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(1))
    criterion = MatchingLoss(model.config, 255, torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0]))
    layers = run_in_training(model, pixel_values)
    assert len(layers.class_logits) == 2  # every layer of the decoder is supervised
    whole = criterion(layers, labels)
    counts = [criterion.count_normalizers(part) for part in labels.split(1)]
    sums = {key: sum(count[key] for count in counts) for key in counts[0]}
    for size in (1, 4):
        shares = []
        for start in range(0, 8, size):
            part = slice(start, start + size)
            cut = type(layers)(*(tuple(layer[part] for layer in layers[key]) for key in layers))
            shares.append(criterion(cut, labels[part], normalizers=sums, accumulation_steps=8 // size))
        torch.testing.assert_close(torch.stack(shares).sum(), whole, rtol=1e-6, atol=0)


class Squares(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Four images of noise with labels in squares."""

    def __init__(self) -> None:
        self.pixel_values = torch.randn(4, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(0))
        self.labels = draw_labels(4, 5)
        self.labels[1, 20:] = 255
        self.labels[2] = 3

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self.pixel_values[index], "labels": self.labels[index], "index": torch.tensor(index)}


def train_briefly(model: PreTrainedModel, folder: Path, batch_size: int, **values: object) -> SegmentationTrainer:
    options = {"max_steps": 1, "learning_rate": 0.0, "save_strategy": "no", **values}
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        logging_steps=1,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=4 // batch_size,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        **options,
    )
    trainer = SegmentationTrainer(model, arguments, train_dataset=Squares(), eval_dataset=Squares(), classes=CLASSES)
    trainer.train()
    return trainer


@pytest.mark.parametrize("model_type", ["eomt", pytest.param("mask2former", marks=pytest.mark.slow)])
def test_accumulated_training_logs_the_same_loss_and_gradient(model_type: str, tmp_path: Path) -> None:
    runs = [train_briefly(build_model(model_type), tmp_path / str(size), size) for size in (4, 1)]
    whole, parts = (run.state.log_history[0] for run in runs)
    for key in ("loss", "loss/cross_entropy", "loss/mask", "loss/dice"):
        assert parts[key] == pytest.approx(whole[key], rel=1e-6), key
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-5)
    weights = runs[0].model.config
    total = weights.class_weight * whole["loss/cross_entropy"] + weights.mask_weight * whole["loss/mask"]
    assert whole["loss"] == pytest.approx(total + weights.dice_weight * whole["loss/dice"], rel=1e-5)


@each_family
def test_ignored_pixels_pull_at_no_mask(model_type: str) -> None:
    model, labels = build_model(model_type), draw_labels(1, 3)
    labels[:, :32] = 255
    criterion = MatchingLoss(model.config, 255)
    queries = run_in_training(model, torch.randn(1, 3, SIDE_PX, SIDE_PX))
    masks = queries.mask_logits[0]
    masks.retain_grad()
    criterion(queries, labels).backward()
    rows = masks.grad.abs().sum((0, 1, 3))
    known = masks.shape[2] // 2
    assert float(rows[: known - 1].max()) == 0.0  # the last ignored row lies beside a known one
    assert float(rows[known:].min()) > 0.0


def test_an_image_of_ignored_pixels_alone_counts_nothing() -> None:
    model = build_model("mask2former")
    criterion = MatchingLoss(model.config, 255)
    nothing = torch.full((1, SIDE_PX, SIDE_PX), 255)
    assert {key: float(value) for key, value in criterion.count_normalizers(nothing).items()} == {
        "masks": 0.0,
        "queries": 0.0,
    }
    queries = run_in_training(model, torch.randn(1, 3, SIDE_PX, SIDE_PX))
    loss = criterion(queries, nothing)
    loss.backward()
    assert float(loss.detach()) == 0.0


def test_class_weights_and_absent_objects_weigh_the_class_term() -> None:
    criterion = MatchingLoss(build_model("eomt", num_classes=2).config, 255, torch.tensor([3.0, 0.5]))
    labels = torch.tensor([[[0, 0], [1, 1]], [[1, 1], [255, 255]]])
    counts = criterion.count_normalizers(labels)
    # Image one: weights 3 and 0.5, six queries without an object at 0.1; image two: 0.5 and seven.
    assert float(counts["queries"]) == pytest.approx(3.5 + 0.6 + 0.5 + 0.7)
    assert float(counts["masks"]) == 3


# Training


def test_attention_is_unmasked_block_by_block() -> None:
    assert compute_mask_probabilities(0.0, 2) == [1.0, 1.0]
    assert compute_mask_probabilities(0.25, 2) == [1.0, 1.0]
    assert compute_mask_probabilities(0.375, 2) == [pytest.approx(0.5**0.9), 1.0]
    assert compute_mask_probabilities(0.5, 2) == [0.0, 1.0]
    assert compute_mask_probabilities(0.75, 2) == compute_mask_probabilities(1.0, 2) == [0.0, 0.0]


@pytest.mark.parametrize("model_type", ["eomt", pytest.param("eomt_dinov3", marks=pytest.mark.slow)])
def test_a_resumed_training_goes_on_exactly_with_its_attention(model_type: str, tmp_path: Path) -> None:
    options = {"max_steps": 6, "learning_rate": 1e-3, "save_strategy": "steps", "save_steps": 3}
    options |= {"eval_strategy": "steps", "eval_steps": 3}
    seen: list[float] = []
    model = build_model(model_type)
    model.register_forward_pre_hook(lambda module, _: seen.append(float(module.attn_mask_probs[0])))
    whole = train_briefly(model, tmp_path, 4, **options)
    # Three thirds of six steps: masked, falling, free; evaluations in between are never at random.
    probabilities = [value for value in seen if 0 < value < 1]
    assert probabilities == [pytest.approx(0.5**0.9)]
    assert seen[0] == 1.0
    assert seen[-1] == float(model.attn_mask_probs[0]) == 0.0
    resumed = train_briefly_from(build_model(model_type), tmp_path, options)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


def train_briefly_from(model: PreTrainedModel, folder: Path, options: dict[str, object]) -> SegmentationTrainer:
    arguments = TrainingArguments(
        output_dir=str(folder / "again"),
        use_cpu=True,
        report_to="none",
        logging_steps=1,
        per_device_train_batch_size=4,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        **options,
    )
    trainer = SegmentationTrainer(model, arguments, train_dataset=Squares(), eval_dataset=Squares(), classes=CLASSES)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    return trainer


@each_family
def test_the_encoder_has_its_own_learning_rate(model_type: str) -> None:
    model = build_model(model_type)
    head = {name for name, _ in model.named_parameters() if is_head_parameter(model, name)}
    encoder = {name for name, _ in model.named_parameters()} - head
    assert any("class" in name for name in head)
    assert not any("query" in name.split(".")[0] or "class_" in name for name in encoder)
    assert len(encoder) > 20


# Loading


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Save a tiny Mask2Former as somebody published it, with five classes."""
    build_model("mask2former").save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_head_for_other_classes_is_new_and_told(saved: Path) -> None:
    recipe = ModelRecipe(checkpoint=str(saved))
    same = load_model(recipe, CLASSES)
    assert same.new_parameters == []
    assert same.other_classes == ()
    for names in (["a", "b", "c", "d", "e"], ["a", "b"]):  # five others, and fewer
        loaded = load_model(recipe, ClassMap.build(names))
        assert {name for name in loaded.new_parameters if "criterion" not in name} == {
            "class_predictor.weight",
            "class_predictor.bias",
        }
        assert loaded.model.class_predictor.out_features == len(names) + 1
        assert "5 classes are others (class 0, class 1, class 2, ...)" in loaded.describe()


@pytest.mark.parametrize("model_type", ["eomt", "mask2former"])
def test_other_channels_are_widened(model_type: str, tmp_path: Path) -> None:
    build_model(model_type).save_pretrained(tmp_path)
    loaded = load_model(ModelRecipe(checkpoint=str(tmp_path)), CLASSES, channels=4)
    assert loaded.checkpoint_channels == 3
    assert compute_scores(loaded.model.eval(), torch.zeros(1, 4, SIDE_PX, SIDE_PX)).shape[:2] == (1, 5)


@pytest.mark.parametrize(
    ("model_type", "key", "value"),
    [
        ("maskformer", "use_auxiliary_loss", True),
        ("mask2former", "use_auxiliary_loss", False),
        ("oneformer", "is_training", True),
    ],
)
def test_values_that_the_library_does_not_serve_are_refused(model_type: str, key: str, value: bool) -> None:
    config = {"model_type": model_type, **TINY[model_type], key: value}
    with pytest.raises(InputError, match=f"model.config.{key}: transformers' {model_type} does not serve"):
        load_model(ModelRecipe(config=config), CLASSES)


def test_losses_of_pixels_are_refused_by_name(tmp_path: Path) -> None:
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    with pytest.raises(InputError, match="matching masks with queries.*\n?.*dice, focal"):
        SegmentationTrainer(build_model("eomt"), arguments, losses={"dice": 1.0, "focal": 1.0}, classes=CLASSES)


def test_more_classes_than_queries_are_told() -> None:
    criterion = MatchingLoss(build_model("mask2former", num_queries=3).config, 255)
    with pytest.raises(InputError, match="holds more classes than there are queries.*\n?.*5 classes, 3 queries"):
        criterion.count_normalizers(draw_labels(1, 5))


def test_labels_outside_the_classes_are_told() -> None:
    criterion = MatchingLoss(build_model("mask2former").config, 255)
    with pytest.raises(InputError, match="1 pixels are outside the classes"):
        criterion.count_normalizers(torch.tensor([[[0, 7]]]))


def test_another_size_than_eomt_takes_is_told() -> None:
    with pytest.raises(ValueError, match="the shorter side must be 64 pixels, found 80 x 96"):
        compute_scores(build_model("eomt"), torch.zeros(1, 3, 80, 96))


def test_label_maps_of_scores_are_those_of_interpolation() -> None:
    scores = compute_scores(build_model("mask2former"), torch.randn(1, 3, 64, 96))
    assert scores.shape == (1, 5, 384, 384)
    wanted = torch.nn.functional.interpolate(scores, (301, 77), mode="bilinear").argmax(1)
    assert torch.equal(label_map(scores, (301, 77)).long(), wanted)


@pytest.mark.parametrize(
    ("model_type", "backbone", "first"),
    [
        ("eomt", "dinov2", "embeddings.patch_embeddings.projection.weight"),
        ("eomt_dinov3", "dinov3_vit", "embeddings.patch_embeddings.weight"),
        ("mask2former", "swin", "model.pixel_level_module.encoder.swin.embeddings.patch_embeddings.projection.weight"),
    ],
)
def test_the_encoder_comes_from_a_backbone(model_type: str, backbone: str, first: str, tmp_path: Path) -> None:
    tiny = TINY[model_type]
    values = tiny.get("backbone_config") or {
        **{key: tiny[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size")},
        **({"intermediate_size": 32} if backbone == "dinov3_vit" else {"image_size": 32}),
    }
    torch.manual_seed(3)
    given = AutoModel.from_config(AutoConfig.for_model(**{**values, "model_type": backbone}))
    given.save_pretrained(tmp_path)
    own = {key: value for key, value in tiny.items() if key not in (*values, "backbone_config") or key == "image_size"}
    recipe = ModelRecipe(config={"model_type": model_type, "backbone": str(tmp_path), **own})
    loaded = load_model(recipe, CLASSES)
    source = given.state_dict()
    kernel = next(value for name, value in source.items() if "patch_embeddings" in name and "weight" in name)
    assert torch.equal(loaded.model.state_dict()[first], kernel)
    transfer = loaded.transfer
    assert transfer is not None
    assert len(transfer.loaded) >= len(source) - 3  # mask tokens, and the norm after the last stage
    assert not [name for name in transfer.new if "hidden_states_norms" not in name and "register" not in name]
    assert "class_predictor.weight" in loaded.new_parameters
    assert compute_scores(loaded.model.eval(), torch.zeros(1, 3, SIDE_PX, SIDE_PX)).isfinite().all()
