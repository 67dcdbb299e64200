"""What a person can get wrong ends before training, in one message, with exit code 2 and no traceback."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from launching import write_recipe
from PIL import Image
from transformers import BertConfig, TrainerCallback

import run_segmentation
from segplus.errors import EXIT_CODE_DIVERGED, EXIT_CODE_INPUT


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each run a cache of its own."""
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def write_folder(folder: Path, pairs: int = 6, size: tuple[int, int] = (48, 64)) -> Path:
    """Write a data set of two classes, ids 0 and 1, in images/ and masks/ with id2label.json."""
    data = folder / "data"
    (data / "images").mkdir(parents=True)
    (data / "masks").mkdir()
    rng = np.random.default_rng(0)
    for number in range(pairs):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(data / "images" / f"{number}.jpg")
        Image.fromarray(rng.integers(0, 2, size, dtype=np.uint8)).save(data / "masks" / f"{number}.png")
    (data / "id2label.json").write_text(json.dumps({"0": "ground", "1": "thing"}))
    return data


def refuse(capsys: pytest.CaptureFixture[str], recipe: Path, *arguments: str, code: int = EXIT_CODE_INPUT) -> str:
    """Run a recipe that must end with the code, and return what it says."""
    assert run_segmentation.main([str(recipe), *arguments]) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.count("error: ") == 1
    assert not list((recipe.parent / "run").glob("checkpoint-*"))
    return said[said.index("error: ") :]


def recipe_for(data: Path, section: dict | None = None) -> Path:
    return write_recipe(data.parent, {"data": {"dataset": str(data), **(section or {})}})


def test_a_misspelt_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refuse(capsys, write_recipe(tmp_path, {"training": {"learning_rat": 1}}))
    assert "recipe.yaml: unknown key 'training.learning_rat'" in said
    assert "did you mean 'learning_rate'?" in said


def test_a_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refuse(capsys, recipe_for(tmp_path / "nowhere"))
    assert "data.dataset: no such folder" in said
    assert str(tmp_path / "nowhere") in said


@pytest.mark.parametrize(("removed", "kept"), [("masks/2.png", "2.jpg"), ("images/2.jpg", "2.png")])
def test_an_image_without_its_mask_and_the_reverse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], removed: str, kept: str
) -> None:
    data = write_folder(tmp_path)
    (data / removed).unlink()
    assert kept in refuse(capsys, recipe_for(data))


def test_sizes_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path)
    Image.fromarray(np.zeros((48, 60), np.uint8)).save(data / "masks" / "3.png")
    said = refuse(capsys, recipe_for(data))
    assert "3.jpg" in said
    assert "image 64 x 48, mask 60 x 48 px" in said


def test_an_exif_orientation_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path)
    image = Image.open(data / "images" / "3.jpg")
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees: the upright image is 64 high and 48 wide
    image.save(data / "images" / "3.jpg", exif=exif)
    assert "image 48 x 64, mask 64 x 48 px" in refuse(capsys, recipe_for(data))


def test_a_value_outside_the_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path)
    mask = np.zeros((48, 64), np.uint8)
    mask[0, :5] = 9
    Image.fromarray(mask).save(data / "masks" / "1.png")
    said = refuse(capsys, recipe_for(data))
    assert "1.png" in said
    assert "9 (5 pixels)" in said


def test_a_colour_mask_where_ids_were_promised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(data / "masks" / "1.png")
    assert "1.png" in refuse(capsys, recipe_for(data))


def test_no_class_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path)
    (data / "id2label.json").unlink()
    assert "class names" in refuse(capsys, recipe_for(data))


def test_a_crop_that_the_model_cannot_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {
        "model": {"config": DPT, "image_processor": {"size": {"height": 64, "width": 64}}},
        "transforms": {"crop_size_px": [48, 64]},
    }
    said = refuse(capsys, write_recipe(tmp_path, changes))
    assert "transforms.crop_size_px: DPTForSemanticSegmentation cannot take this size" in said
    assert "48 x 64" in said
    assert "fix: use " in said


def test_a_checkpoint_that_is_no_segmentation_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    BertConfig().save_pretrained(tmp_path / "bert")
    said = refuse(capsys, write_recipe(tmp_path, {"model": {"config": {}, "checkpoint": str(tmp_path / "bert")}}))
    assert "is no semantic-segmentation model" in said
    assert "segformer" in said


def test_shared_batch_norm_statistics_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refuse(capsys, write_recipe(tmp_path, {"model": {"sync_batch_norm": True}}), "--use_cpu", "true")
    assert "model.sync_batch_norm" in said
    assert "freeze_batch_norm" in said


def test_an_output_folder_that_holds_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("data: {dataset: other}\n")
    said = refuse(capsys, write_recipe(tmp_path))
    assert "holds another run" in said
    assert "data.dataset was 'other' there, is 'synthetic' here" in said


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_names_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int) -> None:
    data = write_folder(tmp_path)
    path = data / "images" / "4.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    said = refuse(capsys, recipe_for(data), "--dataloader_num_workers", str(workers))
    assert "4.jpg" in said


def test_masks_without_a_valid_pixel_train_with_zero_loss(tmp_path: Path) -> None:
    data = write_folder(tmp_path)
    for path in (data / "masks").iterdir():
        Image.fromarray(np.full((48, 64), 7, np.uint8)).save(path)
    recipe = recipe_for(data, {"void": [7]})
    assert run_segmentation.main([str(recipe), "--max_steps", "2"]) == 0
    state = json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    assert [entry["loss"] for entry in state["log_history"] if "loss" in entry] == [0.0, 0.0]


DPT = {
    "model_type": "dpt", "is_hybrid": False, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
    "intermediate_size": 16, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 8, 8],
    "fusion_hidden_size": 8, "image_size": 64,
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"size": {"hieght": 48, "width": 64}}, "hieght"),
        ({"size": {"height": "tall", "width": 64}}, ""),
        ({"image_mean": [0.5, 0.5]}, ""),
    ],
)
def test_values_that_the_image_processor_cannot_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], values: dict, found: str
) -> None:
    said = refuse(capsys, write_recipe(tmp_path, {"model": {"image_processor": values}}))
    assert "model.image_processor" in said
    assert found in said


def test_a_misspelt_tracker_and_one_that_is_not_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refuse(capsys, write_recipe(tmp_path), "--report_to", "tensorbord")
    assert "training.report_to: no such tracker" in said
    assert "did you mean 'tensorboard'?" in said
    missing = next(name for name, module in (("trackio", "trackio"), ("wandb", "wandb"), ("swanlab", "swanlab"))
                   if importlib.util.find_spec(module) is None)  # fmt: skip
    said = refuse(capsys, write_recipe(tmp_path), "--report_to", f"[tensorboard, {missing}]")
    assert f"training.report_to: {missing} is not installed" in said
    assert f"pip install {missing}" in said


def test_a_monitored_class_that_no_evaluation_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path)
    said = refuse(capsys, recipe_for(data), "--metric_for_best_model", "iou/thng")
    assert "training.metric_for_best_model: no such class\n  found: iou/thng" in said
    assert "did you mean 'thing'?" in said
    for path in (data / "masks").iterdir():
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(path)
    said = refuse(capsys, recipe_for(data), "--metric_for_best_model", "iou/thing")
    assert "no mask of the validation split holds this class" in said
    assert "allowed: mean_iou, iou/ground" in said


def test_a_licence_that_the_hub_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refuse(capsys, write_recipe(tmp_path), "--card.license", "Apache 2.0")
    assert "card.license: not an identifier of the Hub" in said
    assert "apache-2.0" in said


def test_a_protocol_whose_size_the_model_cannot_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The served size is one that DPT takes; the images' own, 48 x 96 for the protocol, is not."""
    data = write_folder(tmp_path, size=(48, 96))
    sizes = {"model": {"config": DPT, "image_processor": {"size": {"height": 64, "width": 64}}}}
    changes = {**sizes, "data": {"dataset": str(data)}, "transforms": {"crop_size_px": [64, 64]}}
    for protocol in (
        {"name": "original", "stride_px": 16},
        {"name": "sliding", "window_px": [48, 96], "stride_px": 16},
    ):
        recipe = write_recipe(tmp_path, {**changes, "evaluation": {"protocol": protocol}})
        said = refuse(capsys, recipe)
        assert "evaluation.protocol: DPTForSemanticSegmentation cannot take an image of this size" in said
        assert "48 x 96" in said


def test_scales_of_an_image_processor_without_a_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"model": {"image_processor": {"do_resize": False}}}
    said = refuse(capsys, write_recipe(tmp_path, changes), "--evaluation.protocol.scales", "[0.5, 1.0]")
    assert "evaluation.protocol.scales: the image processor has no size to scale" in said


def test_a_push_without_a_way_to_the_hub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refuse(capsys, write_recipe(tmp_path), "--push_to_hub", "true", "--hub_model_id", "no such/name")
    assert "training.push_to_hub: no such/name cannot be written, so nothing was trained" in said


# transformers 5.23 calls it activation_checkpointing, earlier versions do not.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
def test_gradient_checkpointing_of_a_model_without_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"model": {"config": {"model_type": "mobilenet_v2", "depth_multiplier": 0.1}}}
    said = refuse(capsys, write_recipe(tmp_path, changes), "--gradient_checkpointing", "true")
    assert "training.gradient_checkpointing: MobileNetV2ForSemanticSegmentation cannot" in said


class SpoilWeights(TrainerCallback):
    """Make every loss NaN from the first step on."""

    def on_step_begin(self, args, state, control, model=None, **kwargs) -> None:
        next(model.parameters()).data.fill_(float("nan"))


class SpoilGradient(TrainerCallback):
    """Make the gradient of step 2 infinite."""

    def on_step_begin(self, args, state, control, model=None, **kwargs) -> None:
        if state.global_step == 1:
            parameter = next(model.parameters())
            handle = parameter.register_hook(lambda gradient: gradient + float("inf"))
            self.handle, self.before = handle, parameter.detach().clone()

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        if state.global_step == 2:
            self.handle.remove()
            assert torch.equal(self.before, next(model.parameters()))


def test_a_loss_that_stays_nan_ends_the_run_with_file_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path, {"callbacks": ["test_bad_input.SpoilWeights"]})
    said = refuse(capsys, recipe, code=EXIT_CODE_DIVERGED)
    assert "the loss was nan 3 steps running, last at step 3" in said
    assert "batch: train/" in said


class SpoilMicroBatches(TrainerCallback):
    """Make the loss of some micro-batches NaN: all of step 2, or the first of each step."""

    def __init__(self, steps: tuple[int, ...] = (2,), whole: bool = True) -> None:
        self.steps, self.whole = steps, whole

    def on_step_begin(self, args, state, control, model=None, **kwargs) -> None:
        self.parameter = next(model.parameters())
        self.before = self.parameter.detach().clone()
        if state.global_step + 1 in self.steps:
            self.parameter.data.fill_(float("nan"))

    def on_substep_end(self, args, state, control, **kwargs) -> None:
        if not self.whole:
            self.parameter.data.copy_(self.before)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.parameter.data.copy_(self.before)


class SpoilFirstMicroBatches(SpoilMicroBatches):
    def __init__(self) -> None:
        super().__init__(steps=(1, 2, 3), whole=False)


ACCUMULATED = {"model": {"freeze_batch_norm": True}, "training": {"gradient_accumulation_steps": 4}}


def test_one_bad_step_of_four_micro_batches_is_one_bad_step(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {**ACCUMULATED, "callbacks": ["test_bad_input.SpoilMicroBatches"]})
    values = ["--per_device_train_batch_size", "1", "--max_steps", "3"]
    assert run_segmentation.main([str(recipe), *values]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["training"]["skipped_steps"] == 1


def test_one_bad_micro_batch_a_step_counts_three_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path, {**ACCUMULATED, "callbacks": ["test_bad_input.SpoilFirstMicroBatches"]})
    said = refuse(capsys, recipe, "--num_train_epochs", "4", "--save_strategy", "no", "--load_best_model_at_end",
                  "false", code=EXIT_CODE_DIVERGED)  # fmt: skip
    assert "the loss was nan 3 steps running, last at step 3" in said
    assert "batch: train/" in said


def test_a_step_with_an_infinite_gradient_is_left_out(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {"callbacks": ["test_bad_input.SpoilGradient"]})
    assert run_segmentation.main([str(recipe), "--max_steps", "3"]) == 0
    state = json.loads((tmp_path / "run" / "checkpoint-3" / "trainer_state.json").read_text())
    assert [entry.get("skipped_steps") for entry in state["log_history"] if "loss" in entry] == [None, 1, 1]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["training"]["skipped_steps"] == 1
    assert metrics["evaluations"]["test"]["mean_iou"] is not None
