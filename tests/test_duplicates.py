"""Repeated images: the quick ways find what comparing all with all finds, and hold little of each pair."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segplus.data.layouts.source import build_table
from segplus.data.statistics import Visit
from segplus.inspection.duplicates import NEAR_BITS, find_equal_images, find_near_pairs
from segplus.inspection.measurements import PairFacts
from segplus.inspection.tallies import MOST_OUTSIDE, SplitTally


def compare_all(first: list[int], second: list[int]) -> list[tuple[int, int]]:
    """Compare every hash with every other one; 0 is none, of equally near ones the first counts."""
    pairs = []
    for row, value in enumerate(first):
        distances = [(bin(value ^ other).count("1"), position) for position, other in enumerate(second) if other]
        if value and distances and min(distances)[0] <= NEAR_BITS:
            pairs.append((row, min(distances)[1]))
    return pairs


def flip_bits(value: int, positions: list[int]) -> int:
    for position in positions:
        value ^= 1 << position
    return value


HASH = st.integers(0, 2**64 - 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(HASH, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.lists(st.integers(0, 63), max_size=7, unique=True)), max_size=12),
    st.lists(HASH, max_size=5),
)
def test_near_pairs_are_those_of_comparing_all_with_all(
    second: list[int], changes: list[tuple[int, list[int]]], others: list[int]
) -> None:
    near = [flip_bits(second[position % len(second)], bits) for position, bits in changes if second]
    first = [*others, *near, 0]
    assert find_near_pairs(first, second) == compare_all(first, second)


@pytest.mark.parametrize("bits", [[0, 10, 20, 31, 42], [63, 62, 61, 60, 59], [5, 16, 26, 37, 48]])
def test_five_differing_bits_are_near_and_six_are_not(bits: list[int]) -> None:
    value = 0x0123456789ABCDEF
    assert find_near_pairs([flip_bits(value, bits)], [7, value]) == [(0, 1)]
    assert find_near_pairs([flip_bits(value, [*bits, 55])], [7, value]) == []


def test_many_hashes_are_compared_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segplus.inspection.duplicates._AT_ONCE", 7)
    rng = np.random.default_rng(0)
    second = [int(value) for value in rng.integers(1, 2**10, 60)]  # equal in every range of bits but the lowest
    first = [flip_bits(value, [int(rng.integers(0, 64))]) for value in second[:40]]
    assert find_near_pairs(first, second) == compare_all(first, second)


def test_equal_images_are_grouped_over_splits_in_the_order_of_their_first() -> None:
    digests = {"train": [5, 9, 0, 9, 3], "validation": [3, 0, 7], "test": [9, 8, 3]}
    groups = find_equal_images(digests)
    assert groups == [
        [("train", 1), ("train", 3), ("test", 0)],
        [("train", 4), ("validation", 0), ("test", 2)],
    ]
    assert find_equal_images({}) == []
    assert find_equal_images({"train": []}) == []


def test_what_is_kept_of_a_pair_are_three_numbers_and_its_counts() -> None:
    classes, pairs = 3, 5_000
    tally, rng, zeros = SplitTally(classes), np.random.default_rng(0), np.zeros(classes, dtype=np.int64)
    pixels = np.array([5, 5, 5, 0])
    numbers = rng.integers(1, 2**63, (pairs, 3)).tolist()
    tracemalloc.start()
    for index, (looks, image, mask) in enumerate(numbers):
        facts = PairFacts(
            (8, 8), (8, 8), {}, zeros, zeros, "PNG RGB", "PNG L", hash=looks, digest=image, mask_digest=mask
        )
        tally.add(index, Visit({"counts": pixels}, seen=facts), ("image.png", "mask.png"))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / pairs < 32 + 8 * (classes + 1)
    assert tally.statistics.pixels == [5 * pairs, 5 * pairs, 5 * pairs, 0]


def test_values_outside_the_classes_are_told_apart_up_to_a_number() -> None:
    tally, zeros = SplitTally(1), np.zeros(1, dtype=np.int64)
    for start in (0, MOST_OUTSIDE - 10):
        outside = dict.fromkeys(range(start, start + MOST_OUTSIDE), 2)
        facts = PairFacts((8, 8), (8, 8), outside, zeros, zeros, "PNG RGB", "PNG L")
        tally.add(0, Visit({"counts": np.array([5, 0])}, seen=facts), ("image.png", "mask.png"))
    assert len(tally.outside) == MOST_OUTSIDE
    assert tally.outside[0] == 2
    assert tally.outside[MOST_OUTSIDE - 1] == 4
    assert tally.problems["outside the classes"].count == 2


def test_a_table_is_made_of_a_stream_of_pairs() -> None:
    rows = [(f"{index:05d}", f"i/{index}.png", f"m/{index}.png") for index in range(9000)]
    tracemalloc.start()
    table = build_table((name, image, mask) for name, image, mask in rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_000_000
    assert len(table) == 9000
    assert tuple(table[8191].values()) == rows[8191]
    assert tuple(table.select([8999, 0])[0].values()) == rows[8999]
    assert build_table([]).column_names == ["name", "image", "mask"]
