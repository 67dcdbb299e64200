"""The decode cache: the same pairs without decoding, its size known before, never half written."""

from __future__ import annotations

import pickle
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

import segplus.data.cache
from segplus.data.cache import measure_cache, open_cache
from segplus.data.synthetic.scenes import SyntheticScenes
from segplus.errors import InputError
from segplus.recipe.transforms_section import TransformsRecipe
from segplus.training.sets import TrainingSet
from segplus.transforms import TrainingTransform, WholePair


@pytest.fixture(autouse=True)
def _own_memory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path_factory.mktemp("memory")))


class Pairs:
    """Images of different sizes that count how often they are decoded."""

    def __init__(self, fingerprint: str = "abc", channels: int = 3, wide: bool = False) -> None:
        self.fingerprint, self.channels, self.wide, self.decoded = fingerprint, channels, wide, 0
        self.names = [f"pair {index}" for index in range(4)]
        self.order = list(range(4))

    def __len__(self) -> int:
        return len(self.order)

    def size_px(self, index: int) -> tuple[int, int]:
        return 20 + 3 * self.order[index], 31 - 2 * self.order[index]

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.decoded += 1
        image, label = SyntheticScenes(4, self.size_px(index)).draw(self.order[index])
        if self.channels != 3:
            return {"image": np.repeat(image[..., :1], self.channels, axis=2), "label": label, "name": self.name(index)}
        if self.wide:
            label = label.astype(np.uint16) + 300
        return {"image": Image.fromarray(image), "label": label, "name": self.name(index)}

    def open(self, index: int) -> WholePair:
        return WholePair(self[index]["image"], self[index]["label"])

    def name(self, index: int) -> str:
        return self.names[index]

    def select(self, indices: list[int], title: str | None = None) -> Pairs:
        chosen = Pairs(self.fingerprint, self.channels, self.wide)
        chosen.order = [self.order[index] for index in indices]
        chosen.names = [self.names[index] for index in indices]
        return chosen


@pytest.mark.parametrize(("channels", "wide"), [(3, False), (3, True), (5, False)])
def test_the_cache_gives_the_same_pairs(tmp_path: Path, channels: int, wide: bool) -> None:
    source = Pairs(channels=channels, wide=wide)
    cached = open_cache(source, tmp_path)
    decoded = source.decoded
    assert len(cached) == 4
    for index in range(4):
        pair, wanted = cached[index], Pairs(channels=channels, wide=wide)[index]
        assert type(pair["image"]) is type(wanted["image"])
        assert np.array_equal(np.asarray(pair["image"]), np.asarray(wanted["image"]))
        assert np.array_equal(pair["label"], wanted["label"])
        assert pair["label"].dtype == wanted["label"].dtype
        assert pair["name"] == wanted["name"]
        assert cached.size_px(index) == source.size_px(index)
    assert source.decoded == decoded


def test_the_size_is_known_before(tmp_path: Path) -> None:
    source = Pairs()
    expected = sum(height * width * 4 for height, width in map(source.size_px, range(4)))
    assert measure_cache(source) == expected
    open_cache(source, tmp_path)
    written = sum(file.stat().st_size for file in tmp_path.rglob("*.bin"))
    assert written == expected


def test_a_cache_is_used_again_until_the_content_changes(tmp_path: Path) -> None:
    open_cache(Pairs(), tmp_path)
    again, other = Pairs(), Pairs("def")
    open_cache(again, tmp_path)
    open_cache(other, tmp_path)
    assert again.decoded == 0
    assert other.decoded > 4 - 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_write_that_dies_leaves_nothing(tmp_path: Path) -> None:
    class Damaged(Pairs):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if index == 2:
                raise InputError("image 2: truncated")
            return super().__getitem__(index)

    with pytest.raises(InputError, match="truncated"):
        open_cache(Damaged(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["images.bin", "labels.bin", "table.npy", "index.json"])
@pytest.mark.parametrize("damage", ["emptied", "cut", "changed", "absent"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    open_cache(Pairs(), tmp_path)
    path = next(tmp_path.rglob(file))
    content = path.read_bytes()
    path.unlink()
    middle = len(content) // 2
    changed = {"emptied": b"", "cut": content[:middle]}
    if damage != "absent":
        path.write_bytes(changed.get(damage, content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]))
    again = Pairs()
    cached = open_cache(again, tmp_path)
    assert again.decoded > 4 - 1
    assert len(caplog.messages) == 1
    assert "made anew" in caplog.messages[0]
    assert np.array_equal(cached[3]["label"], Pairs()[3]["label"])
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_in_the_place_of_a_cache_or_its_folder(tmp_path: Path) -> None:
    (tmp_path / f"abc-{segplus.data.cache._FORMAT}").write_text("no cache")
    assert len(open_cache(Pairs(), tmp_path)) == 4
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: a file lies where a folder is needed"):
        open_cache(Pairs(), tmp_path / "file")


def test_too_little_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 100))
    with pytest.raises(InputError, match="too little room"):
        open_cache(Pairs(), tmp_path)


def test_selection_and_workers_read_the_same_files(tmp_path: Path) -> None:
    cached = open_cache(Pairs(), tmp_path)
    cached[0]
    for copy in (pickle.loads(pickle.dumps(cached)), cached.select([3, 1]).select([1, 0]).select([1, 0])):
        last = copy[3] if len(copy) == 4 else copy[0]
        assert np.array_equal(last["label"], Pairs()[3]["label"])
        assert last["name"] == "pair 3"


def test_training_samples_are_the_same_from_the_cache(tmp_path: Path) -> None:
    processor = SegformerImageProcessorPil(do_resize=False)
    transform = TrainingTransform(processor, TransformsRecipe(preset="standard", crop_size_px=[24, 24]))
    plain, cached = TrainingSet(Pairs(), transform), TrainingSet(open_cache(Pairs(), tmp_path), transform)
    for index in range(4):
        for key in ("pixel_values", "labels"):
            assert torch.equal(plain[index][key], cached[index][key])
