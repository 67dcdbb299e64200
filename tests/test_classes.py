"""ClassMap: the one look-up table."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segplus.classes import ClassMap, pack_colors, unpack_color
from segplus.errors import InputError


def test_reduce_void_merge_by_hand() -> None:
    classes = ClassMap.build(
        ["wall", "car", "bus", "sky"], reduce_labels=True, void=["wall"], merge={"vehicle": ["car", "bus"]}
    )
    assert classes.names == ("vehicle", "sky")
    raw = np.array([[0, 1, 2], [3, 4, 255]], dtype=np.uint8)
    assert classes.decode(raw, "m").tolist() == [[255, 255, 0], [0, 1, 255]]
    assert classes.id2label == {0: "vehicle", 1: "sky"}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_every_integer_type_decodes_alike(dtype: type) -> None:
    classes = ClassMap.build({3: "a", 200: "b"}, void=[7])
    labels = classes.decode(np.array([[3, 200, 7, 255]], dtype=dtype), "m")
    assert labels.tolist() == [[0, 1, 255, 255]]
    assert labels.dtype == np.uint8


def test_negative_values_are_looked_up() -> None:
    classes = ClassMap.build({0: "a", -1: "b"}, void=[-2])
    assert classes.names == ("b", "a")
    assert classes.decode(np.array([[-1, 0, -2]]), "m").tolist() == [[0, 1, 255]]
    with pytest.raises(InputError, match=r"-3 \(1 pixels\)"):
        classes.decode(np.array([[-3]]), "m")


def test_254_255_and_256_classes() -> None:
    for count in (254, 255, 256):
        classes = ClassMap.build([f"c{index}" for index in range(count)])
        raw = np.arange(count, dtype=np.uint16)[None]
        labels = classes.decode(raw, "m")
        assert labels.tolist() == raw.tolist()
        assert labels.dtype == (np.uint8 if count <= 255 else np.uint16)
        assert classes.ignore_index == (255 if count <= 255 else 65535)
        with pytest.raises(InputError, match="outside"):
            classes.decode(np.array([[300]]), "m")


def test_values_outside() -> None:
    classes = ClassMap.build(["a", "b"])
    raw = np.array([[0, 1, 254, 9, 9]], dtype=np.uint8)
    assert classes.count_outside(raw) == {9: 2, 254: 1}
    with pytest.raises(
        InputError, match=r"m.png: mask values outside the classes\n  found: 9 \(2 pixels\), 254 \(1 pixels\)"
    ):
        classes.decode(raw, "m.png")
    ignoring = ClassMap.build(["a", "b"], unknown="ignore")
    assert ignoring.decode(raw, "m").tolist() == [[0, 1, 255, 255, 255]]


def test_legend_keeps_the_order_of_its_names() -> None:
    names = {0xFF0000: "red", 0x0000FF: "blue", 0: "nothing"}
    classes = ClassMap.build(names, void=[0], legend=True)
    assert classes.names == ("red", "blue")
    rgb = np.array([[[255, 0, 0], [0, 0, 255], [0, 0, 0]]], dtype=np.uint8)
    assert classes.decode(pack_colors(rgb), "m").tolist() == [[0, 1, 255]]


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_packing_is_reversible(color: tuple[int, int, int]) -> None:
    assert unpack_color(int(pack_colors(np.array(color)))) == color


def test_huge_values_are_refused() -> None:
    with pytest.raises(InputError, match="beyond 24 bits"):
        ClassMap.build({10**9: "a"})


def test_the_ignore_index_is_no_class() -> None:
    with pytest.raises(InputError, match=r"too many classes\n  found: 65536\n  allowed: at most 65,535"):
        ClassMap.build([f"c{n}" for n in range(65_536)])


def test_pickling_leaves_the_tables_behind() -> None:
    classes = ClassMap.build({0xFFFFFF: "white"}, legend=True)
    classes.decode(np.array([[0xFFFFFF]]), "m")
    assert len(pickle.dumps(classes)) < 2000
    assert pickle.loads(pickle.dumps(classes)).decode(np.array([[0xFFFFFF]]), "m").tolist() == [[0]]
