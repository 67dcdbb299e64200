"""The process's surroundings: output encodings, locales, variables, and names that no terminal shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from .fault import Case, Command
from .specimen import Place

ENCODINGS = ("ascii", "latin-1", "cp1252", "ascii:strict", "koi8-r", "shift-jis")
NAMES = ("straße", "道路", "дорога", "\U0001f6e3 road", "na\u0308me", "a\u202eb", "`'\"", "<b>road</b>")


def rename_classes(data: Path, name: str) -> None:
    """Give a class a name beyond ASCII."""
    (data / "id2label.json").write_text(json.dumps({"0": name, "1": "thing"}, ensure_ascii=False), encoding="utf-8")


def output_encodings(rng: Random) -> Iterator[Case]:
    """Yield runs whose output goes to a terminal without UTF-8: it gets escapes, and the run goes on."""
    pairs = [
        (encoding, name, verb)
        for encoding in ENCODINGS
        for name in NAMES
        for verb in ("inspect", "evaluate", "inspect --json", "train")
    ]
    rng.shuffle(pairs)
    for encoding, name, verb in pairs:

        def build(place: Place, encoding: str = encoding, name: str = name, verb: str = verb) -> Command:
            data = place.put_data()
            rename_classes(data, name)
            environment = {"PYTHONIOENCODING": encoding.split(":")[0], "LC_ALL": "C"}
            if verb == "train":
                place.put_recipe()
                return Command("train", ("recipe.yaml",), results=("out/run/metrics.json",), environment=environment)
            if verb == "evaluate":
                place.put_model()
                words = ("model", "data", "-o", "out/e", "--evaluation.bootstrap_resamples", "0")
                return Command("evaluate", words, results=("out/e/metrics.json",), environment=environment)
            return Command("inspect", ("data", *verb.split()[1:]), environment=environment)

        yield Case(f"{verb}: a class named {name!r}, output in {encoding}", build, "runs")


def names_of_files(rng: Random) -> Iterator[Case]:
    """File names that no encoding, no shell and no page likes."""
    names = [
        "é",
        "a\nb",
        "\udcff\udcfe",
        "\udc80",
        "-rf",
        "a b",
        "'; touch planted; '",
        "<script>alert(1)</script>",
        "$(touch planted)",
        "%s%d",
        "{{ 7*7 }}",
        "x" * 240,
    ]
    pairs = [(name, verb) for name in names for verb in ("inspect", "predict", "evaluate")]
    rng.shuffle(pairs)
    for name, verb in pairs:

        def build(place: Place, name: str = name, verb: str = verb) -> Command:
            data = place.put_data()
            stem = name.replace("/", "_")
            (data / "images" / "2.jpg").rename(data / "images" / f"{stem}.jpg")
            (data / "masks" / "2.png").rename(data / "masks" / f"{stem}.png")
            environment = {"PYTHONIOENCODING": rng.choice(("utf-8", "ascii"))}
            if verb == "inspect":
                return Command("inspect", ("data", "--page", "out/page.html"), environment=environment)
            place.put_model()
            words = {"predict": ("model", "data/images", "-o", "out/p"),
                     "evaluate": ("model", "data", "-o", "out/e", "--save-predictions", "ids", "--split",
                     "train")}[verb]  # fmt: skip
            return Command(verb, words, environment=environment)

        # A name that is no text cannot stand in a table or a page; 240 letters leave no room for ".segplus-".
        yield Case(
            f"{verb}: a file named {name[:30]!r}",
            build,
            "either" if len(name) > 200 or any("\udc80" <= letter <= "\udcff" for letter in name) else "runs",
        )


def variables(rng: Random) -> Iterator[Case]:
    changes: list[tuple[dict[str, str], str]] = [
        ({"TMPDIR": "/proc/nowhere"}, "TMPDIR"), ({"HOME": "/proc/nowhere"}, "HOME"), ({"COLUMNS": "x"}, "COLUMNS"),
        ({"TERM": "x"}, "TERM"),
        ({"XDG_CACHE_HOME": "/proc/x", "SEGPLUS_CACHE": ""}, "XDG_CACHE_HOME"), ({"ACCELERATE_MIXED_PRECISION": "x"},
        "ACCELERATE_MIXED_PRECISION"),
        ({"SEGPLUS_DATA": "/nowhere"}, "SEGPLUS_DATA"), ({"OMP_NUM_THREADS": "x"}, "OMP_NUM_THREADS"),
        ({"TQDM_DISABLE": "1"}, "TQDM_DISABLE"),
        ({"CUDA_VISIBLE_DEVICES": "99"}, "CUDA_VISIBLE_DEVICES"), ({"LC_ALL": "nobody"}, "LC_ALL"),
        ({"PYTHONIOENCODING": "ascii"}, "PYTHONIOENCODING"),
    ]  # fmt: skip
    pairs = [(values, name, verb) for values, name in changes for verb in ("train", "inspect", "evaluate")]
    rng.shuffle(pairs)
    for values, name, verb in pairs:

        def build(place: Place, values: dict[str, str] = values, verb: str = verb) -> Command:
            place.put_data()
            place.put_recipe()
            if verb == "evaluate":
                place.put_model()
            words = {"train": ("recipe.yaml",), "inspect": ("data",), "evaluate": ("model", "data", "-o", "out/e")}[
                verb
            ]
            return Command(verb, words, environment=values)

        yield Case(f"{verb}: {name}={values[name]}", build, "either")


GENERATORS = (output_encodings, names_of_files, variables)
