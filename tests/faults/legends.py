"""id2label.json, class lists, colour legends: gaps, odd keys, two names for one thing, unreadable files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

from .fault import Case, Command, Expected, write_bytes
from .specimen import Place


def read_legend(content: bytes | str, name: str = "id2label.json", key: str = "", verb: str = "inspect"):
    """Return a builder: the data set with this legend file, named by a key of the recipe where one is given."""

    def build(place: Place) -> Command:
        data = place.put_data()
        write_bytes(data / name, content)
        words = (f"--data.{key}", f"data/{name}") if key else ()
        if verb == "train":
            place.put_recipe()
            return Command("train", ("recipe.yaml", *words), (name, "classes", "colors"))
        return Command("inspect", ("data", *words), (name, "classes", "colors"))

    return build


def names_of_values(rng: Random) -> Iterator[Case]:
    contents: list[tuple[object, Expected]] = [
        ({"0": "a"}, "answered"), ({}, "answered"), ([], "answered"), (7, "answered"), (None, "answered"), ("x",
        "answered"),
        ({"0": None, "1": "b"}, "answered"), ({"0": ["a"], "1": "b"}, "answered"), ({"0": {"a": 1}, "1": "b"},
        "answered"),
        ({"x": "a", "y": "b"}, "answered"), ({"0": "a", "1": "a"}, "answered"), ({"0.5": "a", "1": "b"}, "answered"),
        ({"a": 0, "b": 0}, "answered"), ({"a": 0.5, "b": 1}, "answered"), ({"": "a", "1": "b"}, "answered"),
        ({"-1-": "a", "1": "b"}, "answered"), ({"--1": "a", "1": "b"}, "answered"), ({"²": "a", "1": "b"}, "answered"),
        ({"0": "a", "1": "b", str(10**30): "c"}, "answered"), ({"0": "a", "1": "b", str(-(2**30)): "c"}, "answered"),
        ({"0": "a", "1": "b", "9" * 5000: "c"}, "answered"), ([["a"], ["b"]], "answered"), ([{}, {}], "answered"),
        ([None, None], "answered"), ({"0": True, "1": False}, "answered"), ({"0": "a", "2": "b"}, "answered"),
        ({"0": "a", "1": "b", "7": "c"}, "runs"), ({"0": "a", "1": "b", "5": "d", "-3": "e"}, "runs"),
        ({"0": "", "1": "b"}, "either"), ({"0": "a\x00", "1": "b"}, "either"), ({"0": "a\nb", "1": "c"}, "either"),
        ({"0": "x" * 100_000, "1": "b"}, "either"), ({"0": "<script>", "1": "{{ 7*7 }}"}, "either"), ({"0": 7,
        "1": 8.5}, "either"),
        ({str(n): f"c{n}" for n in range(70_000)}, "either"), ({"00": "a", "0": "b", "1": "c"}, "answered"),
        ({"a": 0, "b": 1, "c": "x"}, "answered"), ({"a": 0, "b": 1, "c": 10**30}, "answered"), ([1, 2], "either"),
        ({"0": "a", "1": "b", "٣": "c"}, "either"), ({"a": [0], "b": [1]}, "answered"), ({"a": None, "b": 1},
        "answered"),
    ]  # fmt: skip
    rng.shuffle(contents)
    for content, expected in contents:
        told = json.dumps(content, ensure_ascii=False)[:60]
        yield Case(f"id2label.json {told}", read_legend(json.dumps(content)), expected)


def unreadable_files(rng: Random) -> Iterator[Case]:
    contents: dict[str, bytes] = {
        "empty": b"", "half": b'{"0": "gro', "NUL bytes": b"\x00" * 40,
        "latin-1": '{"0": "é", "1": "b"}'.encode("latin-1"),
        "utf-16": '{"0": "a", "1": "b"}'.encode("utf-16"), "nested": b"[" * 100_000,
        "HTML": b"<!DOCTYPE html><p>404</p>",
        "git-lfs": b"version https://git-lfs.github.com/spec/v1\n", "a PNG": b"\x89PNG\r\n\x1a\n", "NaN": b"NaN",
        "a huge number": b'{"0": ' + b"9" * 5000 + b"}", "random": bytes(rng.randrange(256) for _ in range(60)),
    }  # fmt: skip
    for told, content in contents.items():
        yield Case(f"id2label.json: {told}", read_legend(content))
        yield Case(f"data.classes names a file: {told}", read_legend(content, "names.json", "classes"))
        yield Case(f"data.colors names a JSON file: {told}", read_legend(content, "colors.json", "colors"))
        yield Case(f"data.colors names a CSV file: {told}", read_legend(content, "colors.csv", "colors"))


def colour_files(rng: Random) -> Iterator[Case]:
    lines = [
        "name,r,g,b\nground,0,0\n", "ground,0,0,0\nthing,300,0,0\n", "ground,a,b,c\nthing,d,e,f\n",
        "0,0,0,0\n1,1,1,1\n",
        "ground,0,0,0\nthing,1,1,1\nnobody,2,2,2\n", "ground,0,0,0\nthing,-1,0,0\n", "ground,0,0,0\nthing,²,0,0\n",
        "ground,0,0,0,0,0\nthing,1,1,1,1,1\n", ",,,\n,,,\n", "ground,0,0,0\nthing,\x00,0,0\n",
        '"ground,0,0,0\nthing,1,1,1\n',
        "ground,0,0,0\nthing," + "9" * 5000 + ",0,0\n", "x\n" * 50, "ground 0 0 0\nthing 1 1 256\n",
        "ground,٣,٣,٣\nthing,1,1,300\n",
    ]  # fmt: skip
    rng.shuffle(lines)
    for text in lines:
        yield Case(f"colors.csv {text[:40]!r}", read_legend(text, "colors.csv", "colors"))
    mappings: list[object] = [
        {"ground": [0, 0]}, {"ground": "x"}, {"ground": None}, {"nobody": [1, 2, 3]}, [], 7, {"ground": [0, 0, 256]},
        {"ground": ["0", "0", "0"]}, {"ground": [0.1, 0.2, 0.3]}, {"ground": {"r": 1}}, {"ground": "#zzzzzz"}, None,
        "x",
        {"ground": [0, 0, 0], "thing": [10**30, 0, 0]}, {"ground": [True, False, True, False]}, {"ground": "#-1-1-1"},
    ]  # fmt: skip
    for mapping in mappings:
        text = json.dumps(mapping)
        yield Case(f"colors.json {text[:50]}", read_legend(text, "colors.json", "colors"))


GENERATORS = (names_of_values, unreadable_files, colour_files)
