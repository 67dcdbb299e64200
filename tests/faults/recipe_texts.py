"""Recipes whose YAML is unsound: tags, aliases, depth, encodings, misspelt keys, and things that are no file."""

from __future__ import annotations

import os
import string
from collections.abc import Iterator
from random import Random

import yaml

from .fault import Case, Command, write_bytes
from .specimen import RECIPE, Place, change_recipe


def read(content: bytes | str, *names: str, name: str = "recipe.yaml"):
    """Return a builder: the data set, and a recipe file of this content that is trained."""

    def build(place: Place) -> Command:
        place.put_data()
        write_bytes(place.folder / name, content)
        makes = None if names == ("",) else ("out", "cache")  # random damage may have named another folder
        return Command("train", (name,), names or (name,), makes=makes, megabytes=1024)

    return build


def text() -> str:
    """Return the tiny recipe as YAML."""
    return yaml.safe_dump(RECIPE)


def tags(rng: Random) -> Iterator[Case]:
    values = [
        "!!python/object/apply:os.system ['touch out/owned']", "!!python/name:os.system", "!custom x", "!!set {a, b}",
        "!!binary aGVsbG8=", "!!omap [a: 1]", "!!timestamp 2024-99-99", "!!int abc", "!!float x", "!!null x",
        "!!python/tuple [1]", "!!pairs [a: 1]", "2024-01-01", "2024-01-01T00:00:00Z", "!!bool maybe", "0x", "1:2:3:4",
        "!!binary '*'", "!!timestamp x", "2024-13-45", "!!merge x", "!!seq {a: 1}", "!!map [1]", "!!str [1]",
    ]  # fmt: skip
    places = ("data.seed", "data.void", "training.learning_rate", "data.classes", "losses", "card.tags")
    pairs = [(value, key) for value in values for key in places]
    rng.shuffle(pairs)
    for value, key in pairs:
        section, _, leaf = key.partition(".")
        body = f"{leaf}: {value}" if leaf else value
        lines = text().splitlines()
        if leaf and f"{section}:" in lines:
            lines.insert(lines.index(f"{section}:") + 1, f"  {body}")
        else:
            lines.append(f"{section}: {{{body}}}" if leaf else f"{section}: {body}")
        yield Case(f"{key}: {value}", read("\n".join(lines), leaf or section, "recipe.yaml"))


def unsound_yaml(rng: Random) -> Iterator[Case]:
    good = text()
    contents: list[bytes | str] = [
        "", "\n\n", "- a\n- b\n", "7", "just words", "null", "data: [", "data: {dataset: data", "\tdata: 1", "a: b: c",
        good + "data: {}\n", good + "---\n" + good, "? [a]\n: b\n", "? {a: b}\n: c\n", "<<: 3\n" + good, "a: *nobody",
        "&a [*a]", "data: &d\n  <<: *d\n", "%YAML 9.9\n---\na: 1", "data: \x00", b"\x00" * 100,
        b"\xff\xfe\xfa" + good.encode(),
        good.encode("utf-16")[2:], good.encode("utf-32"), "data: |\n x\n\ty", "@x: 1", "`x`: 1", "data: 'x",
        'data: "\\q"',
        "? data\n? model\n", "data:\n  ? [1, 2]\n  : 3\n", b"\x1f\x8b" + bytes(rng.randrange(256) for _ in range(80)),
        b"<!DOCTYPE html><html><body>404</body></html>", "{{ x }}", "data: !!", "data: \x07", "1.5: x", "2024-01-01: x",
        "true: x\n", "~: x\n",
    ]  # fmt: skip
    rng.shuffle(contents)
    for content in contents:
        raw = content if isinstance(content, bytes) else content.encode()
        yield Case(f"recipe.yaml is {raw[:60]!r}", read(content))


def random_damage(rng: Random) -> Iterator[Case]:
    good = text().encode()
    while True:
        content = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            place = rng.randrange(len(content))
            content[place : place + rng.randrange(2)] = bytes([rng.choice(b"{}[]:&*!|>'\"%@`,#?-\x00\xff\t\n 07aZ")])
        told = f"recipe.yaml with random bytes {bytes(content[:20])!r}..."
        yield Case(told, read(bytes(content), ""), "either")


def depth_and_aliases(rng: Random) -> Iterator[Case]:
    for depth in (500, 3000, rng.randrange(5000, 20000)):
        yield Case(f"{depth} nested lists", read("data: " + "[" * depth + "]" * depth))
        yield Case(f"{depth} nested mappings", read("data: " + "{a: " * depth + "}" * depth))
    for levels, width in ((8, 9), (9, 9), (6, 20), (rng.randrange(7, 10), 10)):
        for key in ("callbacks", "data.void", "card.tags"):
            section, _, leaf = key.partition(".")
            lines = ["l0: &l0 [x, x]"]
            lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * width)}]" for n in range(1, levels)]
            lines.append(f"{section}: {{{leaf}: *l{levels - 1}}}" if leaf else f"{section}: *l{levels - 1}")
            body = "\n".join([*lines, *(line for line in text().splitlines() if section != "data")])
            yield Case(f"{levels} levels of {width} aliases in {key}", read(body))
    levels = [f"    a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    inside = "\n".join(["model:", "  config:", "    a0: &a0 [x, x]", *levels])
    yield Case(
        "aliases inside model.config", read(f"data: {{dataset: data}}\n{inside}\n", "model.config", "recipe.yaml")
    )


def misspelt_keys(rng: Random) -> Iterator[Case]:
    keys = [f"{section}.{key}" for section, values in RECIPE.items() for key in values] + [
        "training.learning_rate", "data.validation_share", "card.license", "optimizer.no_decay", "data.reduce_labels",
        "transforms.rare_class_crop", "evaluation.protocol.window_px", "losses", "callbacks", "class_weights",
    ]  # fmt: skip
    while True:
        key = rng.choice(keys)
        *sections, leaf = key.split(".")
        place = rng.randrange(len(leaf))
        wrong = leaf[:place] + rng.choice(string.ascii_lowercase) + leaf[place + rng.randrange(2) :]
        if wrong in (leaf, "colors", "masks", "seed"):
            continue
        content = yaml.safe_dump(change_recipe({".".join([*sections, wrong]): 1}))
        yield Case(f"key {'.'.join([*sections, wrong])}", read(content, wrong))


def odd_keys(rng: Random) -> Iterator[Case]:
    words = [
        "x" * 100_000,
        "learning_rate" * 20_000,
        "",
        " ",
        "\u202e",
        "a\nb",
        "__class__",
        "0",
        "é",
        "data ",
        "\U0001f600",
    ]
    rng.shuffle(words)
    for word in words:
        for section in ("training.", "data.", "model.config.", "model.image_processor.", "losses.", ""):
            content = yaml.safe_dump(change_recipe({f"{section}{word}" if "." not in word else word: 1}), width=10**6)
            name = word if word.strip() and word.isascii() and len(word) < 30 and "\n" not in word else "recipe.yaml"
            named = (name, "recipe.yaml", section.split(".")[0] or "key")
            yield Case(f"key {section}{word[:30]!r} of {len(word)} letters", read(content, *named))


def strange_texts(rng: Random) -> Iterator[Case]:
    texts = [
        "a\x00b",
        "\x00",
        "x" * 300,
        "x" * 5000,
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1") + "\x00",
    ]
    keys = ("data.dataset", "training.output_dir", "model.checkpoint", "data.images", "data.cache", "data.annotations",
            "data.classes", "data.colors")  # fmt: skip
    pairs = [(key, value) for key in keys for value in texts]
    rng.shuffle(pairs)
    for key, value in pairs:
        content = yaml.safe_dump(change_recipe({key: value}), width=10**6)
        yield Case(f"{key}: {value[:12]!r} of {len(value)} letters", read(content, key.rsplit(".", 1)[-1], value[:12]))


def things_that_are_no_file(rng: Random) -> Iterator[Case]:
    def build_pipe(place: Place) -> Command:
        os.mkfifo(place.folder / "recipe.yaml")
        return Command("train", ("recipe.yaml",), ("recipe.yaml",))

    def build_folder(place: Place) -> Command:
        (place.folder / "recipe.yaml").mkdir()
        return Command("train", ("recipe.yaml",), ("recipe.yaml",))

    def build_link(place: Place) -> Command:
        (place.folder / "recipe.yaml").symlink_to("recipe.yaml")
        return Command("train", ("recipe.yaml",), ("recipe.yaml",))

    yield Case("recipe.yaml is a FIFO", build_pipe)
    yield Case("recipe.yaml is a folder", build_folder)
    yield Case("recipe.yaml is a link to itself", build_link)
    for name in (
        "/dev/zero",
        "/dev/tty",
        "missing.yaml",
        "x" * 300 + ".yaml",
        "a\x00b.yaml" if rng.random() < 0 else "-",
    ):
        yield Case(f"recipe {name[:20]}", lambda _, name=name: Command("train", (name,), (name[:20],)))


GENERATORS = (
    tags, unsound_yaml, random_damage, depth_and_aliases, misspelt_keys, odd_keys, strange_texts,
    things_that_are_no_file,
)  # fmt: skip
