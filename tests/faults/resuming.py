"""Runs that died, and what lies in their folder when the command is repeated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import torch

from . import files
from .checkpoints import Planted
from .fault import Case, Command
from .specimen import Place

STATE = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json")
RESULTS = ("out/run/model.safetensors", "out/run/metrics.json")


def resume(change: Callable[[Path], object], *names: str, results: tuple[str, ...] = RESULTS):
    """Return a builder: a run that died after step 2 of 3, a change of its folder, and its own command again."""

    def build(place: Place) -> Command:
        place.put_data()
        place.put_resumable_recipe()
        change(place.put_run())
        return Command("train", ("recipe.yaml",), names, results=results)

    return build


def damage(path: Path, how: str, rng: Random) -> None:
    """Damage a file in one of the ways that disks and killed copies do."""
    content = path.read_bytes()
    middle = len(content) // 2
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "half":
        path.write_bytes(content[:middle])
    elif how == "zeroed middle":
        length = min(300, middle)
        path.write_bytes(content[: middle - length // 2] + bytes(length) + content[middle - length // 2 + length :])
    elif how == "zeroed":
        path.write_bytes(bytes(len(content)))
    else:
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])


def newest_checkpoint_damaged(rng: Random) -> Iterator[Case]:
    """Yield runs whose newest checkpoint is damaged: the older one is used."""
    pairs = [
        (name, how)
        for name in STATE
        for how in ("missing", "empty", "half", "zeroed middle", "zeroed", "a flipped bit")
    ]
    rng.shuffle(pairs)
    for name, how in pairs:

        def change(run: Path, name: str = name, how: str = how) -> None:
            damage(run / "checkpoint-2" / name, how, rng)

        yield Case(f"resume: checkpoint-2/{name} {how}", resume(change, name), "runs")


def both_checkpoints_damaged(rng: Random) -> Iterator[Case]:
    for name in STATE:
        how = rng.choice(("missing", "empty", "half", "zeroed"))

        def change(run: Path, name: str = name, how: str = how) -> None:
            for step in (1, 2):
                damage(run / f"checkpoint-{step}" / name, how, rng)

        yield Case(f"resume: {name} {how} in both checkpoints", resume(change, name, "checkpoint"), "either")


def recipes_of_runs(rng: Random) -> Iterator[Case]:
    """Yield runs whose recipe.yaml is damaged or gone: the answer says so and how to go on."""
    contents: dict[str, bytes | None] = dict(files.FOREIGN)
    contents |= {"gone": None, "a list": b"- a\n", "null": b"null\n", "half": b"data:\n  dataset: da",
    "sections of text": b"data: x\nmodel: y\n",
                 "tags": b"data: !!python/name:os.system\n",
                 "training is a list": b"data: {dataset: data}\ntraining: [1]\n"}  # fmt: skip
    for told, content in contents.items():

        def change(run: Path, content: bytes | None = content) -> None:
            (run / "recipe.yaml").unlink()
            if content is not None:
                (run / "recipe.yaml").write_bytes(content)

        yield Case(f"resume: run/recipe.yaml is {told}", resume(change, "recipe.yaml", "another run"))
    del rng


def code_in_states(rng: Random) -> Iterator[Case]:
    """Pickles in a checkpoint are not run."""
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        for is_bare in (False, True):

            def change(run: Path, name: str = name, is_bare: bool = is_bare) -> None:
                import pickle

                for step in (1, 2):
                    path = run / f"checkpoint-{step}" / name
                    path.write_bytes(pickle.dumps(Planted())) if is_bare else torch.save({"a": Planted()}, path)

            yield Case(f"resume: code in {name}, {'bare' if is_bare else 'torch.save'}", resume(change), "either")
    del rng


def states(rng: Random) -> Iterator[Case]:
    """Trainer states that are JSON and mean nothing, strange folders, and leftovers of a killed process."""
    values = [{}, [], None, 7, {"global_step": "x"}, {"global_step": -1, "max_steps": 3}, {"global_step": 10**30,
    "max_steps": 3},
              {"global_step": 2, "max_steps": 3, "log_history": 7}, {"global_step": None}]  # fmt: skip
    for value in values:

        def change(run: Path, value: object = value) -> None:
            (run / "checkpoint-2" / "trainer_state.json").write_text(json.dumps(value))

        yield Case(f"resume: trainer_state.json is {json.dumps(value)[:50]}", resume(change, "trainer_state"), "either")
    for name in (
        "checkpoint-99",
        "checkpoint-0",
        f"checkpoint-{'9' * 40}",
        "checkpoint-x",
        "tmp-checkpoint-3",
        ".segplus-1a2b.part",
    ):

        def make(run: Path, name: str = name) -> None:
            (run / name).mkdir()

        yield Case(f"resume: an empty folder {name[:24]}", resume(make, "checkpoint"), "runs")

    def make_file(run: Path) -> None:
        shutil.rmtree(run / "checkpoint-2")
        (run / "checkpoint-2").write_text("x")

    yield Case("resume: checkpoint-2 is a file", resume(make_file, "checkpoint-2"), "either")
    del rng


GENERATORS = (newest_checkpoint_damaged, both_checkpoints_damaged, recipes_of_runs, code_in_states, states)
