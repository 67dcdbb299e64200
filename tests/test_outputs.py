"""Where results go: inside their folder, over nothing that a person owns, whole or not at all."""

from __future__ import annotations

import ast
import errno
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest

from segplus.data.layouts.source import build_table
from segplus.errors import InputError
from segplus.files import (
    is_leftover,
    place_outputs,
    prepare_folder,
    sweep_leftovers,
    write_text,
    write_whole,
    write_whole_folder,
)
from segplus.models.manifest import find_altered_file
from segplus.models.model_configs import expand_checkpoint
from segplus.reporting.metrics_file import refuse_foreign_results

ROOT = Path(__file__).parents[1] / "segplus"
LEFTOVER = ".segplus-0123456789abcdef.part"
# Everything in the package that writes to the disk. Files named after samples are placed by `place_outputs`; all others
# have fixed names, or one that the person gave.
SAVES = {"save", "savez", "savez_compressed", "write_text", "write_bytes", "tofile", "to_csv", "imwrite", "write_table"}
SAVES |= {"NamedTemporaryFile", "mkstemp", "copy2", "copyfile", "symlink_to", "hardlink_to"}
WRITERS = {
    "commands/compare.py: sheet.save": "disagreements/, numbered by rank",
    "commands/endings.py: os.open": "the null device",
    "data/cache.py: beside / 'images.bin'.open": "inside write_whole_folder",
    "data/cache.py: beside / 'index.json'.write_text": "inside write_whole_folder",
    "data/cache.py: beside / 'labels.bin'.open": "inside write_whole_folder",
    "data/cache.py: np.save": "inside write_whole_folder",
    "data/remembered.py: temporary.write_bytes": "inside write_whole, named by digests",
    "data/statistics.py: np.savez_compressed": "into memory",
    "export/folder.py: shutil.copyfile": "inside write_whole_folder, run.py",
    "export/graphs.py: torch.export.save": "inside write_whole_folder",
    "export/onnx_graph.py: onnx.save": "inside write_whole_folder, or a temporary folder",
    "export/quantization.py: onnx.save": "inside a temporary folder",
    "export/runner.py: Image.fromarray().save": "run.py, in the folder that its user names",
    "files.py: os.open": "temporary files, and the probe for one",
    "files.py: temporary.write_text": "write_text",
    "commands/prediction_run.py: shown.save": "thumbnails/, at paths from place_outputs",
    "inference/output_kinds.py: Image.fromarray().save": "at paths from place_outputs",
    "inference/output_kinds.py: np.savez_compressed": "inside write_whole, at paths from place_outputs",
    "inference/output_kinds.py: temporary.open": "inside write_whole, at paths from place_outputs",
    "inference/prediction_folder.py: self.path.open": "segplus_records.jsonl, a line an image",
    "inference/prediction_files.py: draw_labels().save": "write_labels, at paths from place_outputs",
    "inference/prediction_files.py: pq.write_table": "write_table, at paths from place_outputs",
    "inference/prediction_files.py: temporary.open": "write_table, at paths from place_outputs",
    "inspection/audit_page.py: joined.save": "into memory",
    "reporting/charts.py: image.save": "into memory",
    "reporting/gallery.py: photo.save": "into memory",
    "reporting/image_counts.py: np.savez_compressed": "inside write_whole, image_counts.npz",
    "reporting/image_counts.py: temporary.open": "inside write_whole, image_counts.npz",
    "reporting/results.py: first.image.save": "pictures/input.png",
    "reporting/results.py: panel.save": "pictures/, numbered",
    "training/batch_picture.py: draw_batches().save": "inside write_whole, pictures/batch.png",
    "training/resumption.py: shutil.copyfile": "a checkpoint's copy of recipe.yaml",
    "training/space.py: path.open": "measures what room is left",
}


def describe_call(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{describe_call(node.value)}.{node.attr}"
    return f"{describe_call(node.func)}()" if isinstance(node, ast.Call) else ast.unparse(node)


def writes(call: ast.Call) -> bool:
    name = describe_call(call.func).rpartition(".")[2]
    if name == "open":
        given = [one.value for one in [*call.args, *(k.value for k in call.keywords)] if isinstance(one, ast.Constant)]
        modes = [value for value in given if re.fullmatch(r"[wax]b?\+?|r\+b?|rb\+", str(value))]
        return bool(modes) or describe_call(call.func) == "os.open"
    return name in SAVES


def test_every_writer_is_known() -> None:
    found = set()
    for path in ROOT.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        names = {describe_call(call.func) for call in calls if writes(call)} - {"write_text", "write_table"}  # ours
        found |= {f"{path.relative_to(ROOT).as_posix()}: {name}" for name in names}
    assert found == set(WRITERS)


def test_a_name_stays_inside_its_folder(tmp_path: Path) -> None:
    names = ["/photos/1", "../../2", "part/3", "4.bmp", "./5", "a/../6"]
    placed = [path.relative_to(tmp_path).as_posix() for path in place_outputs(tmp_path, names, ".png")]
    assert placed == ["photos/1.png", "2.png", "part/3.png", "4.bmp.png", "5.png", "a/6.png"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1", "../1"], r"1 and \.\./1 would both become"),
        (["a", "a.png/b"], "the file of another sample"),
        (["", "1"], "no file can have"),
        (["/"], "no file can have"),
        (["a\0b"], "no file can have"),
        (["\ud800"], "no file can have"),
        (["x" * 252], "too long"),
        (["linked/1"], "a link, which is not followed"),
        (["link"], "a link, which is not followed"),
        (["folder"], "a folder"),
        (["photo"], "would be written over an input file"),
    ],
)
def test_a_name_that_cannot_be_a_file_is_refused_before_the_first(
    tmp_path: Path, names: list[str], message: str
) -> None:
    output = tmp_path / "out"
    (output / "folder.png").mkdir(parents=True)
    (output / "linked").symlink_to(tmp_path)
    (output / "link.png").symlink_to(tmp_path / "nothing")
    photo = output / "photo.png"
    photo.write_bytes(b"photo")
    with pytest.raises(InputError, match=message):
        place_outputs(output, names, ".png", [tmp_path / "absent.png", photo])


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "new" / "one.txt"
    write_text(target, "whole \udcff")
    assert target.read_text(encoding="utf-8") == "whole \\udcff"
    with suppress(RuntimeError), write_whole(target) as temporary:
        assert is_leftover(temporary.name)
        temporary.write_text("half")
        raise RuntimeError("died")
    assert [path.name for path in target.parent.iterdir()] == ["one.txt"]
    assert target.read_text(encoding="utf-8") == "whole \\udcff"


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"photo")
    link = tmp_path / "link.txt"
    link.symlink_to(photo)
    write_text(link, "text")
    assert photo.read_bytes() == b"photo"
    assert not link.is_symlink()


def test_a_folder_takes_the_place_of_what_stood_there(tmp_path: Path) -> None:
    target = tmp_path / "cache"
    (target / "old").mkdir(parents=True)
    with write_whole_folder(target) as temporary:
        (temporary / "new").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert [path.name for path in target.iterdir()] == ["new"]
    with suppress(RuntimeError), write_whole_folder(target):
        raise RuntimeError("died")
    assert [path.name for path in tmp_path.rglob("*")] == ["cache", "new"]


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path: Path) -> None:
    (tmp_path / LEFTOVER).write_text("half")
    (tmp_path / LEFTOVER.replace("0", "f")).mkdir()
    (tmp_path / ".segplus-mine.part").write_text("a person's")
    with write_whole(tmp_path / "one.txt") as temporary:
        temporary.write_text("whole")
        prepare_folder(tmp_path)
    sweep_leftovers(tmp_path / "absent")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".segplus-mine.part", "one.txt"]


def test_what_stands_in_the_way_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    for place, message in {
        "file": "a file lies where a folder is needed",
        "file/inside": "a file lies where a folder is needed",
        "nowhere": "a link to nothing",
        "x" * 300: "the name is too long",
    }.items():
        with pytest.raises(InputError, match=message) as refused:
            prepare_folder(tmp_path / place)
        assert str(tmp_path / place.split("/")[0]) in str(refused.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="a folder lies where a file is needed"):
        write_text(tmp_path / "folder", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "nowhere"]


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only")]
)
def test_what_the_system_refuses_names_the_file(tmp_path: Path, number: int, message: str) -> None:
    target = tmp_path / "metrics.json"
    target.write_text("before")
    with pytest.raises(InputError, match=f"metrics.json: .*{message}"), write_whole(target):
        raise OSError(number, os.strerror(number))
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("content", [None, "mine", "[1]", '{"mean": 1}'])
def test_results_of_somebody_else_are_not_written_over(tmp_path: Path, content: str | None) -> None:
    files = [tmp_path / name for name in ("metrics.json", "per_image.csv", "report.html")]
    refuse_foreign_results(files, "segplus_version")  # nothing lies there
    files[2].write_text("mine")
    if content is not None:
        files[0].write_text(content)
    with pytest.raises(InputError, match="not written by segplus, and would be written over"):
        refuse_foreign_results(files, "segplus_version")
    files[0].write_text('{"segplus_version": "0"}')
    refuse_foreign_results(files, "segplus_version")


def test_a_name_in_no_encoding_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'b\\udcff.png': a file name that is no text in UTF-8"):
        build_table([("a", "a.png", "a.png"), ("b", "b\udcff.png", "b.png")])
    with pytest.raises(InputError, match=r"model.checkpoint: 'm\\udcff' is no text in UTF-8"):
        expand_checkpoint("m\udcff")


def test_a_manifest_of_an_infinite_size_is_damage(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"files": {"config.json": {"bytes": Infinity, "blake2b": ""}}}')
    assert find_altered_file(tmp_path) == "manifest.json: damaged"
