"""Names, values and colours of classes in the files that people have beside their masks."""

from __future__ import annotations

from pathlib import Path

import pytest

from segplus.data.layouts.legends import find_legends, read_id2label, read_legend, read_legend_file
from segplus.errors import InputError

SKY, ROAD = (0, 0, 255), (128, 64, 128)
BOTH = {"sky": SKY, "road": ROAD}


@pytest.mark.parametrize(
    ("name", "text", "names", "colors"),
    [
        (
            "classes.json",
            '{"classes": [{"title": "sky", "color": "#0000FF"}, {"title": "road", "color": "#804080"}]}',
            {0: "sky", 1: "road"},
            BOTH,
        ),
        ("c.json", '[{"name": "sky", "id": 5, "rgb": [0, 0, 255]}]', {5: "sky"}, {"sky": SKY}),
        ("c.json", '{"sky": [0, 0, 255], "road": "#804080"}', {0: "sky", 1: "road"}, BOTH),
        ("c.json", '{"0": "sky", "7": "road"}', {0: "sky", 7: "road"}, {}),
        ("c.json", '{"sky": 0, "road": 7}', {0: "sky", 7: "road"}, {}),
        ("c.json", '["sky", "road"]', {0: "sky", 1: "road"}, {}),
        ("c.json", '{"categories": [{"id": 3, "name": "sky"}]}', {3: "sky"}, {}),
        ("class_dict.csv", "name,r,g,b\nsky,0,0,255\nroad,128,64,128\n", {0: "sky", 1: "road"}, BOTH),
        ("label_colors.txt", "0 0 255\tsky\n128 64 128\t\troad\n", {0: "sky", 1: "road"}, BOTH),
        ("legend.csv", "class,color\nsky,#0000ff\nroad,#804080\n", {0: "sky", 1: "road"}, BOTH),
        ("labels.csv", "name,id,r,g,b\nsky,23,0,0,255\nroad,7,128,64,128\n", {23: "sky", 7: "road"}, BOTH),
        ("classes.csv", "id,name\n0,sky\n3,traffic light\n", {0: "sky", 3: "traffic light"}, {}),
        ("classes.txt", "0: sky\n1: traffic light\n", {0: "sky", 1: "traffic light"}, {}),
        ("class_names.txt", "sky\ntraffic light\n", {0: "sky", 1: "traffic light"}, {}),
        ("class_names.txt", "name\nsky\nroad\n", {0: "sky", 1: "road"}, {}),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nsky:0,0,255::\nroad:128,64,128::\n",
            {0: "sky", 1: "road"},
            BOTH,
        ),
        (
            "objectInfo150.csv",
            "Idx,Ratio,Train,Val,Stuff,Name\n1,0.15,11664,1172,1,wall\n2,0.1,6046,612,1,building\n",
            {1: "wall", 2: "building"},
            {},
        ),
    ],
)
def test_a_legend_is_taken_as_it_lies(
    tmp_path: Path, name: str, text: str, names: dict[int, str], colors: dict[str, tuple[int, int, int]]
) -> None:
    path = tmp_path / name
    path.write_text(text)
    legend = read_legend(path, name)
    assert (legend.names, legend.colors) == (names, colors)
    assert read_id2label(path, name) == names


def test_only_files_that_are_called_and_built_like_a_legend_are_found(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    (tmp_path / "train.txt").write_text("a\nb\n")
    (tmp_path / "labels.json").write_text('{"images": 3, "annotations": []}')
    (tmp_path / "class_pairs.csv").write_text("image,mask,1,2\na.png,b.png,1,2\n")
    assert list(find_legends(tmp_path)) == ["classes.txt"]


@pytest.mark.parametrize("text", ["", "sky\nroad\n", "name,r,g,b\nsky,0,0,300\n", "sky,1,2\nroad,1,2\n"])
def test_what_names_no_colours_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(InputError, match=r"c\.csv"):
        read_legend_file(tmp_path / "c.csv", "data.colors: c.csv")
