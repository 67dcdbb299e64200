"""The recipe that inspect proposes is one that trains, as it is printed."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml
from mask_sets import SETS
from PIL import Image

import run_segmentation
from segplus.__main__ import main
from segplus.commands.proposing import audit_for_training, check_proposal
from segplus.data import load_segmentation_dataset
from segplus.data.ranges import propose_range
from segplus.inspection import inspect_dataset
from segplus.inspection.proposals import choose_crop, choose_served_size
from segplus.inspection.tallies import SplitTally
from segplus.recipe import DataRecipe, load_recipe

# In place of the checkpoint, which has to be downloaded: a small model of the same type with random weights.
TINY = {"model_type": "segformer", "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16}
SHORT = {
    "--model.checkpoint": "null",
    "--model.config": json.dumps({**TINY, "num_attention_heads": [1, 1, 2, 2]}),
    "--max_steps": "2",
    "--per_device_train_batch_size": "2",
    "--eval_strategy": "no",
    "--save_strategy": "steps",
    "--dataloader_num_workers": "0",
    "--bf16": "false",
}


def read_proposal(text: str) -> str:
    """Return the recipe at the end of what inspect prints."""
    return textwrap.dedent(text.split("A recipe that fits:\n")[1])


def train_two_steps(folder: Path, proposal: str, *arguments: str) -> dict:
    """Run the proposal as it is, but for a small model and few steps; return its metrics."""
    path = folder / "proposed.yaml"
    path.write_text(proposal)
    words = [word for pair in SHORT.items() for word in pair]
    assert run_segmentation.main([str(path), "--output_dir", str(folder / "run"), *words, *arguments]) == 0
    return json.loads((folder / "run" / "metrics.json").read_text())


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
def test_the_recipe_for_camvid_trains_as_printed(
    test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    camvid = str(test_data / "camvid")
    assert main(["inspect", camvid]) == 0
    printed = read_proposal(capsys.readouterr().out)
    assert main(["inspect", camvid, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["recipe"] == printed
    assert yaml.safe_load(printed) == {
        "data": {"dataset": camvid, "void": ["void"]},
        "model": {"checkpoint": "nvidia/mit-b0", "image_processor": {"size": {"height": 360, "width": 480}}},
        "transforms": {"preset": "standard", "crop_size_px": [352, 352]},
        "losses": {"cross_entropy": 1.0, "tversky": 1.0},
        "class_weights": "enet",
    }
    metrics = train_two_steps(tmp_path, printed, "--data.max_images", "{train: 4, validation: 3, test: 2}")
    assert metrics["training"]["steps"] == 2
    assert metrics["class_names"] == [name for name in report["class_names"] if name != "void"]
    assert [metrics["evaluations"][split]["images"] for split in ("validation", "test")] == [3, 2]


def write_pairs(folder: Path, values: list[int], names: dict[str, str] | None) -> Path:
    rng = np.random.default_rng(0)
    for side in ("images", "masks"):
        (folder / side).mkdir(parents=True)
    for index in range(6):
        photo = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        mask = np.kron(rng.choice(values, (6, 8)), np.ones((8, 8), dtype=int)).astype(np.uint8)
        Image.fromarray(photo).save(folder / "images" / f"{index}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
    if names is not None:
        (folder / "id2label.json").write_text(json.dumps(names))
    return folder


@pytest.mark.parametrize(
    ("values", "names", "exit_code", "lines"),
    [
        ([0, 255], {"0": "ground", "1": "crack"}, 1, {"classes": ["ground", "crack"], "encoding": "binary"}),
        ([0, 2, 7], None, 0, {"classes": {0: "value 0", 2: "value 2", 7: "value 7"}}),
        ([0, 1, 2], {"0": "a", "1": "b", "2": "unlabelled"}, 0, {"void": ["unlabelled"]}),
    ],
)
def test_a_proposal_mends_what_was_found_and_trains(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    values: list[int],
    names: dict[str, str] | None,
    exit_code: int,
    lines: dict,
) -> None:
    folder = write_pairs(tmp_path / "data", values, names)
    assert main(["inspect", str(folder)]) == exit_code
    printed = read_proposal(capsys.readouterr().out)
    assert yaml.safe_load(printed)["data"] == {"dataset": str(folder), **lines}
    metrics = train_two_steps(tmp_path, printed)
    counted = np.array(metrics["evaluations"]["validation"]["confusion_matrix"]).sum(axis=1)
    assert counted.sum() > 0
    assert (counted > 0).all()  # every class occurs
    served = load_recipe(tmp_path / "run" / "recipe.yaml").model.image_processor
    assert served == {"size": {"height": 48, "width": 64}}


def test_what_the_recipe_mends_is_a_question_or_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_pairs(tmp_path / "data", [0, 2], None)
    audit = audit_for_training(DataRecipe(dataset=str(folder)))
    levels = {finding["kind"]: finding["level"] for finding in audit.report["findings"]}
    assert (levels["no class names"], audit.exit_code) == ("question", 0)
    main(["inspect", str(folder)])
    said = capsys.readouterr().out
    assert "question: what are these classes called?" in said
    assert "no class names" not in said
    (folder / "class_names.txt").write_text("ground\nthing\nvoid\n")
    audit = audit_for_training(DataRecipe(dataset=str(folder)))
    levels = {finding["kind"]: finding["level"] for finding in audit.report["findings"]}
    assert "no class names" not in levels, "the recipe takes them from a file"
    assert (levels["class named like void"], audit.exit_code) == ("note", 0)
    assert yaml.safe_load(audit.report["recipe"])["data"]["void"] == ["void"]


def test_one_range_over_all_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_pairs(tmp_path / "data", [0, 1], {"0": "a", "1": "b"})
    rng = np.random.default_rng(1)
    for index in range(6):
        deep = rng.integers(0, 2100 + 200 * index, (48, 64), dtype=np.uint16)
        Image.fromarray(deep).save(folder / "images" / f"{index}.png")
    assert main(["inspect", str(folder)]) == 1
    said = capsys.readouterr().out
    assert said.count("data.image_range: [0, 4095]") == 1
    assert "ERROR    train, validation: 6 images deeper than 8 bits" in said
    assert f"           such as {folder / 'images'}/" in said
    assert yaml.safe_load(read_proposal(said))["data"]["image_range"] == [0, 4095]


@pytest.mark.parametrize(("most", "high"), [(2100, 4095), (3760, 4095), (700, 1023), (5000, 5000), (60000, 60000)])
def test_a_range_ends_at_a_round_number_of_bits(most: int, high: int) -> None:
    assert propose_range(np.array([5, 9, most - 3, most], dtype=float)) == [0, high]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, under NumPy 2
@pytest.mark.parametrize("name", SETS)
def test_a_folder_as_people_have_it_gets_a_recipe_that_reads_it_right(tmp_path: Path, name: str) -> None:
    drawn = SETS[name](tmp_path / name)
    report = audit_for_training(DataRecipe(dataset=str(tmp_path / name))).report
    proposed = yaml.safe_load(report["recipe"])["data"]
    assert {key: proposed.get(key) for key in drawn.data} == drawn.data
    splits = load_segmentation_dataset(proposed).splits
    classes, counted = splits["train"].classes, 0
    for split in splits.values():
        for label in (pair["label"] for pair in split):
            counted += np.bincount(label.ravel(), minlength=256)
    counted = dict(zip(classes.names, counted.tolist(), strict=False))
    found = list(counted.values())
    if "colors" in proposed or "colour" in report["question"]:  # their order is that of the shares or of the legend
        found, drawn.pixels = sorted(found), sorted(drawn.pixels)
    assert np.abs(np.array(found) - drawn.pixels).max() <= drawn.close * max(drawn.pixels)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", SETS)
def test_the_recipe_for_a_folder_as_people_have_it_trains_as_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    SETS[name](tmp_path / name)
    main(["inspect", str(tmp_path / name)])
    metrics = train_two_steps(tmp_path, read_proposal(capsys.readouterr().out))
    assert metrics["training"]["steps"] == 2


@pytest.mark.parametrize(
    ("preset", "suffix", "said"),
    [
        ("aerial", "tif", "coordinates of a map"),
        ("medical", "png", "black surround"),
        ("industrial", "png", "grey images, a foreground of 0.65 % that 4 of them lack"),
        ("standard", "png", None),
    ],
)
def test_images_speak_for_a_preset_where_no_name_does(
    tmp_path: Path, preset: str, suffix: str, said: str | None
) -> None:
    rng, folder = np.random.default_rng(0), tmp_path / "data"
    rows, columns = np.mgrid[:48, :64]
    inside = ((rows - 24) / 23) ** 2 + ((columns - 32) / 31) ** 2 < 1
    for side in ("images", "masks"):
        (folder / side).mkdir(parents=True)
    for index in range(8):
        photo = rng.integers(60, 256, (48, 64, 3), dtype=np.uint8)
        if preset == "medical":
            photo[~inside] = 3
        if preset == "industrial":
            photo[:] = photo[..., :1]
        mask = np.zeros((48, 64), np.uint8)
        mask[10:15, 8:16] = index % 2
        # GeoKeyDirectory: a version and no key
        tags = {"tiffinfo": {34735: (1, 1, 0, 0)}} if preset == "aerial" else {}
        Image.fromarray(photo).save(folder / "images" / f"{index}.{suffix}", **tags)
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
    section = {"dataset": str(folder), "classes": ["a", "b"], "validation_share": 0.0}
    report = inspect_dataset(section, progress=False).report
    assert yaml.safe_load(report["recipe"])["transforms"]["preset"] == preset
    assert [reason for reason in report["reasons"] if reason.startswith("preset")] == (
        [] if said is None else [reason for reason in report["reasons"] if said in reason][:1]
    )


def test_no_recipe_is_proposed_beside_an_error_that_it_does_not_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_pairs(tmp_path / "data", [0, 1], {"0": "a", "1": "b"})
    (folder / "masks" / "2.png").unlink()
    assert main(["inspect", str(folder)]) == 1
    printed = capsys.readouterr().out
    assert "A recipe that fits" not in printed
    assert "no recipe is proposed" in printed
    assert main(["new", str(folder), "-o", str(tmp_path / "new.yaml")]) == 2
    assert not (tmp_path / "new.yaml").exists()


def test_what_passes_inspect_passes_the_checks_before_training(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "data", [0, 1], {"0": "a", "1": "b"})
    report = audit_for_training(DataRecipe(dataset=str(folder), validation_share=0.0)).report
    assert report["findings"][0]["message"].startswith("data: no validation split")
    assert "recipe" not in report
    problem = check_proposal(f"data: {{dataset: {folder}, validation_share: 0.0}}\nmodel: {{checkpoint: x}}\n")
    assert problem is not None
    assert "no validation split" in problem.what


@pytest.mark.parametrize(
    ("sizes", "served", "crop"),
    [
        ({(360, 480): 10}, {"height": 360, "width": 480}, [352, 352]),
        ({(360, 480): 95, (480, 360): 5}, {"height": 360, "width": 480}, [352, 352]),
        ({(360, 480): 5, (480, 360): 5}, None, [352, 352]),
        ({(3000, 4000): 3}, {"height": 1500, "width": 2000}, [512, 512]),
        ({(20, 40): 3}, {"height": 20, "width": 40}, [32, 32]),
        ({}, None, [512, 512]),
    ],
)
def test_images_of_one_size_are_served_at_it(sizes: dict, served: dict | None, crop: list[int]) -> None:
    tally = SplitTally(2)
    tally.sizes.update(sizes)
    assert choose_served_size(tally) == served
    assert choose_crop(tally) == crop


@pytest.mark.parametrize("ids", [[0, 1, 2, 3], [0, 5, 11, 18], [1, 2, 3, 4], [*range(19)]])
def test_class_ids_with_void_at_255_are_no_two_classes(
    tmp_path: Path, ids: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for index in range(8):
        blocks = rng.permutation(np.resize(ids, 64)).reshape(8, 8).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        blocks[-6:] = 255
        Image.fromarray(blocks).save(tmp_path / "data" / "masks" / f"{index}.png")
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
            tmp_path / "data" / "images" / f"{index}.png"
        )
    main(["inspect", str(tmp_path / "data")])
    proposal = yaml.safe_load(read_proposal(capsys.readouterr().out))
    splits = load_segmentation_dataset(proposal["data"]).splits
    found = np.concatenate([np.unique(split[0]["label"]) for split in splits.values()])
    assert set(found) == {*range(len(ids)), 255}
