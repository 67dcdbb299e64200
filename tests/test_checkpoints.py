"""Which checkpoint a repeated command resumes from, and which folder it may write into."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from segplus.errors import InputError
from segplus.recipe import load_recipe, save_recipe
from segplus.training.checkpoints import claim_output_dir, find_resumable_checkpoint, is_finished


def write_checkpoint(folder: Path, processes: int = 1) -> Path:
    folder.mkdir(parents=True)
    save_file({"weight": torch.ones(100)}, folder / "model.safetensors")
    ranks = [""] if processes == 1 else [f"_{rank}" for rank in range(processes)]
    for name in ("scheduler.pt", "optimizer.pt", *(f"rng_state{rank}.pth" for rank in ranks)):
        torch.save({"state": torch.ones(100)}, folder / name)
    (folder / "config.json").write_text('{"model_type": "segformer"}')
    (folder / "trainer_state.json").write_text('{"global_step": 1, "max_steps": 2}')
    return folder


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    assert find_resumable_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path / "checkpoint-9")
    newest = write_checkpoint(tmp_path / "checkpoint-10")
    assert find_resumable_checkpoint(tmp_path) == newest


@pytest.mark.parametrize(
    "file",
    ["model.safetensors", "config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"],
)
@pytest.mark.parametrize("damage", ["missing", "half", "empty"])
def test_a_checkpoint_cut_short_is_passed_over(tmp_path: Path, file: str, damage: str) -> None:
    older = write_checkpoint(tmp_path / "checkpoint-5")
    broken = write_checkpoint(tmp_path / "checkpoint-10") / file
    content = broken.read_bytes()
    broken.unlink()
    if damage != "missing":
        broken.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
    assert find_resumable_checkpoint(tmp_path) == older


def test_every_process_needs_its_random_state(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint-10", processes=2)
    assert find_resumable_checkpoint(tmp_path, num_processes=2) == folder
    (folder / "rng_state_1.pth").unlink()
    assert find_resumable_checkpoint(tmp_path, num_processes=2) is None


def make_recipe(folder: Path, *arguments: str):
    path = folder / "run.yaml"
    path.write_text(
        yaml.safe_dump({"data": {"dataset": "synthetic"}, "model": {"config": {"model_type": "segformer"}}})
    )
    return load_recipe(path, arguments)


def test_the_same_run_may_go_on_and_another_may_not(tmp_path: Path) -> None:
    output = tmp_path / "out"
    claim_output_dir(make_recipe(tmp_path), output)
    claim_output_dir(make_recipe(tmp_path), output)
    assert load_recipe(output / "recipe.yaml") == make_recipe(tmp_path)
    with pytest.raises(
        InputError, match=r"holds another run\n  found: training.learning_rate was 6e-05 there, is 0.1 here"
    ):
        claim_output_dir(make_recipe(tmp_path, "--learning_rate", "0.1"), output)


@pytest.mark.parametrize("content", [None, "", "{", "- 1", "data: 5", "\0", "training: []"])
def test_a_recipe_that_is_damaged_or_gone_names_its_copy(tmp_path: Path, content: str | None) -> None:
    output = tmp_path / "out"
    claim_output_dir(make_recipe(tmp_path), output)
    saved, copy = output / "recipe.yaml", output / "checkpoint-5" / "recipe.yaml"
    (output / "checkpoint-3").mkdir()
    if content is None:
        saved.unlink()
    else:
        saved.write_text(content)
    with pytest.raises(
        InputError, match=r"is (gone|damaged)\n  fix: no checkpoint holds a copy: choose another folder"
    ):
        claim_output_dir(make_recipe(tmp_path), output)
    copy.parent.mkdir()
    save_recipe(make_recipe(tmp_path), copy)
    with pytest.raises(InputError, match=f"fix: copy {copy} to {saved}, then repeat the command"):
        claim_output_dir(make_recipe(tmp_path), output)
    copy.rename(saved)
    claim_output_dir(make_recipe(tmp_path), output)


def test_a_run_of_an_older_version_goes_on_although_keys_were_added(tmp_path: Path) -> None:
    output = tmp_path / "out"
    claim_output_dir(make_recipe(tmp_path), output)
    saved = yaml.safe_load((output / "recipe.yaml").read_text())
    del saved["data"]["unknown"], saved["transforms"]["cutmix"], saved["model"]["checkpoint_classes"]
    (output / "recipe.yaml").write_text(yaml.safe_dump(saved))
    with pytest.raises(InputError, match=r"found: data.unknown was 'error' there, is 'ignore' here"):
        claim_output_dir(make_recipe(tmp_path, "--data.unknown", "ignore"), output)
    claim_output_dir(make_recipe(tmp_path), output)
    assert load_recipe(output / "recipe.yaml") == make_recipe(tmp_path)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="not empty"):
        claim_output_dir(recipe, tmp_path)


def test_what_happens_after_training_may_change(tmp_path: Path) -> None:
    output = tmp_path / "out"
    claim_output_dir(make_recipe(tmp_path), output)
    changed = make_recipe(
        tmp_path, "--push_to_hub", "true", "--card.license", "mit", "--evaluation.protocol.flip", "true"
    )
    claim_output_dir(changed, output)
    assert load_recipe(output / "recipe.yaml") == changed


def test_a_recipe_that_was_half_written_does_not_block_the_folder(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / ".segplus-0123456789abcdef.part").write_text("data:")
    claim_output_dir(make_recipe(tmp_path), output)
    assert load_recipe(output / "recipe.yaml") == make_recipe(tmp_path)


@pytest.mark.parametrize(
    ("state", "finished"),
    [
        ({"global_step": 3, "max_steps": 7}, False),
        ({"global_step": 7, "max_steps": 7}, True),
        (
            {
                "global_step": 3,
                "max_steps": 7,
                "stateful_callbacks": {"TrainerControl": {"args": {"should_training_stop": True}}},
            },
            True,
        ),
    ],
)
def test_a_finished_run_is_known(tmp_path: Path, state: dict, finished: bool) -> None:
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    assert is_finished(tmp_path) is finished
