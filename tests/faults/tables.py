"""CSV and JSON-lines manifests, and the metadata of imagefolders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

from .fault import Case, Command, Expected, write_bytes
from .specimen import Place

PAIRS = [(f"images/{number}.jpg", f"masks/{number}.png") for number in range(4)]
PLACES = ("manifest.csv", "manifest.tsv", "metadata.csv")


def write_csv(rows: list[list[str]], mark: str = ",") -> str:
    """Return rows as plain text, nothing quoted."""
    return "".join(mark.join(row) + "\n" for row in rows)


def good_rows() -> list[list[str]]:
    """Return the header and the pairs of the data set."""
    return [["image", "mask"], *map(list, PAIRS)]


def read_table(content: bytes | str, name: str, *names: str, verb: str = "inspect"):
    """Return a builder: the data set with this table in it, and a command that reads it."""

    def build(place: Place) -> Command:
        data = place.put_data()
        write_bytes(data / name, content)
        source = "data" if name.startswith("metadata") else f"data/{name}"
        options = ("--data.layout", "metadata") if name.startswith("metadata") else ()
        wanted = names or (name,)
        if verb == "inspect":
            return Command("inspect", (source, *options), wanted)
        place.put_model()
        return Command("evaluate", ("model", source, *options, "-o", "out/e", "--save-predictions", "ids"), wanted)

    return build


def cells(rng: Random) -> Iterator[Case]:
    odd = ["", " ", "\x00", "missing.jpg", "images", "../data", "x" * 300, "x" * 200_000, "images/0.jpg\x00",
    "\u202e", "#",
           "images/9.jpg", "/", ".", "..", "/dev/null", "http://localhost/x.jpg", "masks/0.png/x", "é.jpg", "a\tb",
           "~"]  # fmt: skip
    while True:
        name, rows = rng.choice(PLACES), good_rows()
        row, column, value = rng.randrange(1, 5), rng.randrange(2), rng.choice(odd)
        if name.endswith("tsv") and "\t" in value:
            continue
        rows[row][column] = value
        content = write_csv(rows, "\t" if name.endswith("tsv") else ",")
        yield Case(f"{name}, row {row}, cell {column}: {value[:20]!r} of {len(value)}", read_table(content, name))


def shapes_of_rows(rng: Random) -> Iterator[Case]:
    for name in PLACES:
        mark = "\t" if name.endswith("tsv") else ","
        changes: dict[str, tuple[list[list[str]], Expected]] = {}
        row = rng.randrange(1, 5)
        rows = good_rows()
        rows[row].append("one cell too many")
        changes["a cell too many"] = (rows, "answered")
        rows = good_rows()
        rows[row] = rows[row][:1]
        changes["a cell too few"] = (rows, "answered")
        rows = good_rows()
        rows.insert(row, [])
        changes["an empty row"] = (rows, "runs")
        changes["header only"] = (good_rows()[:1], "answered")
        changes["no header"] = (good_rows()[1:], "answered")
        changes["one column"] = ([one[:1] for one in good_rows()], "answered")
        rows = good_rows()
        rows[0] = ["image", "image"]
        changes["two equal columns"] = (rows, "answered")
        rows = [[*one, one[1]] for one in good_rows()]
        changes["two columns of masks"] = ([["image", "mask", "label"], *rows[1:]], "answered")
        rows = good_rows()
        rows.append(rows[1])
        changes["a pair that stands twice"] = (rows, "either")
        rows = [[*one, "x" * 50_000] for one in good_rows()]
        changes["fields of 50,000 letters"] = (rows, "runs")
        rows = [[*one, "x" * 300_000] for one in good_rows()]
        changes["fields of 300,000 letters"] = (rows, "answered")
        rows = [[*one, '"never closed' if number == row else ""] for number, one in enumerate(good_rows())]
        changes["a quote that is never closed"] = (rows, "either")
        for told, (content, expected) in changes.items():
            yield Case(f"{name}: {told}", read_table(write_csv(content, mark), name), expected)


def encodings(rng: Random) -> Iterator[Case]:
    good = write_csv([[*row, "é"] for row in good_rows()])
    contents = {
        "latin-1": good.encode("latin-1"), "utf-16": good.encode("utf-16"), "utf-32": good.encode("utf-32"),
        "empty": b"",
        "NUL bytes": b"\x00" * 50, "a PNG": b"\x89PNG\r\n\x1a\n" + b"\x00" * 40, "HTML": b"<!DOCTYPE html><p>404</p>",
        "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "lines of CR": b"\r\r\r",
        "latin-1 in the last row": write_csv(good_rows()).encode() + b"images/0.jpg,masks/\xe9.png\n",
        "random bytes": bytes(rng.randrange(256) for _ in range(200)), "gzip": b"\x1f\x8b\x08" + bytes(60),
        "NUL in a row": write_csv(good_rows()).encode() + b"images/0.jpg\x00,masks/0.png\n",
        "latin-1 far behind": write_csv(good_rows()).encode() * 500 + b"\xe9,\xe8\n",
    }  # fmt: skip
    for told, content in contents.items():
        for name in (*PLACES, "manifest.jsonl", "metadata.jsonl"):
            yield Case(f"{name}: {told}", read_table(content, name))


def json_lines(rng: Random) -> Iterator[Case]:
    good = [json.dumps({"image": image, "mask": mask}) for image, mask in PAIRS]
    lines = [
        "[", "{", "[]", "7", "null", '"x"', "{}", "[" * 100_000, '{"image": ' * 20_000, '{"image": null, "mask": null}',
        '{"image": ["images/0.jpg"], "mask": "masks/0.png"}', '{"image": 7, "mask": 8}', '{"image": {}, "mask": {}}',
        '{"image": "images/0.jpg"}', '{"image": "images/0.jpg", "mask": "masks/0.png\\u0000"}', '{"image": "\\ud800"}',
        '{"image": "images/0.jpg", "mask": "masks/0.png"} x', "NaN", "{'image': 'x'}", '{"image": true, "mask": false}',
        '{"image": "images/0.jpg", "mask": ' + "9" * 5000 + "}", '{"image": "' + "x" * 10**6 + '", "mask": "x"}',
        '{"image": "images/0.jpg", "image": "images/1.jpg"}', "1e999", "-",
        '{"image": "images/0.jpg", "mask": "\\ud800"}',
    ]  # fmt: skip
    pairs = [(line, name, at) for line in lines for name in ("manifest.jsonl", "metadata.jsonl") for at in (0, 2)]
    rng.shuffle(pairs)
    for line, name, at in pairs:
        content = "\n".join([*good[:at], line, *good[at:]]) + "\n"
        yield Case(f"{name}, line {at + 1}: {line[:40]!r} of {len(line)}", read_table(content, name))


def splits_of_rows(rng: Random) -> Iterator[Case]:
    values = ["", "train", "nobody", "\x00", "../x", "7", "x" * 300, "Train", " train", "validation", "all", "a/b"]
    rng.shuffle(values)
    for value in values:
        rows = [[*row, value if number else "split"] for number, row in enumerate(good_rows())]
        yield Case(f"split column: {value[:20]!r}", read_table(write_csv(rows), "manifest.csv"), "either")


def names_that_leave_the_output(rng: Random) -> Iterator[Case]:
    """Absolute paths, `..`, and names that would be one file: predictions are written below the output folder only."""

    def build(kind: str, by: str):
        def write(place: Place) -> Command:
            data = place.put_data()
            table = place.folder / "lists" / "deep" / "list.csv"
            images = [
                f"{data}/images/{n}.jpg" if kind == "absolute" else f"../../data/images/{n}.jpg" for n in range(4)
            ]
            rows = [["image", "mask"], *([image, f"../../data/masks/{n}.png"] for n, image in enumerate(images))]
            if kind == "one file":
                (data / "images" / "0.bmp").write_bytes((data / "images" / "0.jpg").read_bytes())
                rows[2][0] = "../../data/images/0.bmp"
            if by == "jsonl":
                content = "".join(json.dumps(dict(zip(rows[0], row, strict=True))) + "\n" for row in rows[1:])
                table = table.with_suffix(".jsonl")
            else:
                content = write_csv(rows)
            write_bytes(table, content)
            write_bytes(table.parent / "id2label.json", (data / "id2label.json").read_bytes())
            place.put_model()
            words = ("model", str(table.relative_to(place.folder)), "-o", "out/a/b/e", "--save-predictions", rng_kind)
            return Command("evaluate", (*words, "--split", "train"))

        rng_kind = rng.choice(("ids", "palette", "overlay"))
        return write

    for kind in ("absolute", "dots", "one file"):
        for by in ("csv", "jsonl"):
            yield Case(f"{by} with {kind} names, --save-predictions", build(kind, by), "either")


def tables_that_are_no_file(rng: Random) -> Iterator[Case]:
    def build(name: str, what: str):
        def write(place: Place) -> Command:
            import os

            data = place.put_data()
            target = data / name
            if what == "a FIFO":
                os.mkfifo(target)
            elif what == "a folder":
                target.mkdir()
            elif what == "a link to nothing":
                target.symlink_to("nowhere")
            else:
                target.symlink_to("/dev/zero")
            words = ("data", "--data.layout", "metadata") if name.startswith("metadata") else (f"data/{name}",)
            return Command("inspect", words)

        return write

    for name in ("manifest.csv", "manifest.jsonl", "metadata.csv", "metadata.jsonl"):
        for what in ("a FIFO", "a folder", "a link to nothing", "a link to /dev/zero"):
            yield Case(f"{name} is {what}", build(name, what))
    del rng


GENERATORS = (
    cells, shapes_of_rows, encodings, json_lines, splits_of_rows, names_that_leave_the_output, tables_that_are_no_file,
)  # fmt: skip
