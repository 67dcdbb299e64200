"""Command lines: keys, values and options that mean nothing."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from .fault import Case, Command
from .recipe_values import train
from .specimen import Place


def arguments_of_train(rng: Random) -> Iterator[Case]:
    lists = [
        ("--learning_rat", "1"), ("--learning_rate",), ("learning_rate", "1"), ("--", "1"), ("--seed",), ("-x",),
        ("--training.learning_rate=abc",), ("--data.void", "[[1, 2]]"), ("--data.classes", "[a"), ("--=1",),
        ("--seed", "7"), ("--data.no.such", "1"), ("--training", "7"), ("--losses.nobody", "1"), ("--.", "1"),
        ("--training.learning_rate.x", "1"), ("--learning_rate", "1e400"), ("--max_steps", "0"), ("--max_steps", "!!x"),
        ("--learning_rate", "2024-01-01"), ("--data.void", "&a [*a]"), ("--model.config.depths.x", "1"), ("--fold", ""),
        ("--max_steps", "[" * 5000), ("--card.license", "\x01"), ("--losses", ""), ("--", ""),
    ]  # fmt: skip
    rng.shuffle(lists)
    for words in lists:
        name = words[0].lstrip("-").partition("=")[0].rsplit(".", 1)[-1] or "--"
        names = (name, "command line", "several keys")
        yield Case(f"train recipe.yaml {' '.join(words)[:50]}", train({}, *names, arguments=words))


def arguments_of_verbs(rng: Random) -> Iterator[Case]:
    model = "model"
    lists = [
        ("evaluate",), ("evaluate", model), ("evaluate", "missing", "data"), ("evaluate", model, "missing"),
        ("evaluate", model, "data", "--protocol", "x"), ("evaluate", model, "data", "--split", "nobody"),
        ("evaluate", model, "data", "--per-image", "x.txt"), ("evaluate", model, "data", "--recipe", "missing.yaml"),
        ("evaluate", model, "data", "--nobody", "1"), ("evaluate", model, "data", "--training.seed", "1"),
        ("evaluate", model, "data", "--per-image", "../x.csv"), ("evaluate", model, "data", "--data.channels", "4"),
        ("predict", model), ("predict", model, "missing", "-o", "out/p"), ("predict", model, "data", "-o", "out/p.jpg"),
        ("predict", model, "data/images", "-o", "out/p.png"), ("predict", model, "id2label.json", "-o", "out/p"),
        ("predict", "data", "data/images", "-o", "out/p"), ("predict", model, "[", "-o", "out/p"),
        ("predict", model, "data/images", "-o", "out/p", "--kind", "x"), ("predict", "", "data/images", "-o", "out/p"),
        ("predict", model, "data/images", "-o", ""),
        ("predict", model, "data/images", "-o", "out/p", "--data.seed", "x"), ("predict", model, "/dev/zero", "-o",
        "out/p"),
        ("compare", model, "--data", "data"), ("compare", model, model, "--data", "data"), ("compare",),
        ("compare", model, "missing", "--data", "data"), ("folds",), ("folds", "missing"), ("folds", "data"),
        ("folds", model), ("inspect",), ("inspect", "missing"), ("inspect", "data", "--page", "data"),
        ("inspect", "data/images/0.jpg"), ("inspect", "data", "--recipe", "missing.yaml"), ("inspect", "owner/nobody"),
        ("inspect", "recipe.yaml/x"), ("inspect", "data\x00"), ("evaluate", "mod\x00el", "data"), ("inspect",
        "x" * 5000),
        ("predict", model, "data\x00", "-o", "out/p"), ("predict", model, "data/images", "-o", "out/\x00"),
        ("predict", model, "x" * 300, "-o", "out/p"), ("evaluate", model, "data", "-o", ""), ("folds", "x" * 5000),
    ]  # fmt: skip
    rng.shuffle(lists)
    for words in lists:
        yield Case(" ".join(words)[:70].replace("\x00", "\\0"), _build(words))


def _build(words: tuple[str, ...]):
    def build(place: Place) -> Command:
        place.put_data()
        place.put_model()
        output = ("-o", "out/e") if words[0] in ("evaluate", "compare") and "-o" not in words else ()
        return Command(words[0], (*words[1:], *output))

    return build


GENERATORS = (arguments_of_train, arguments_of_verbs)
