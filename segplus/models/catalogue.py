"""Which models there are and when to choose one: the one table of docs/models.md, `segplus models` and the tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CatalogueRow:
    """One model, or one head.

    Args:
        name: `model_type` of a config, or `head` of an encoder-head config.
        choose_if: Ends the sentence "choose it if".
        what: What it is, in a line.
        paper: First author and year.
        link: Of the paper.
        config: Values of the config that `millions` was counted with.
        millions: Parameters in millions, without auxiliary heads.
        training_millions: With auxiliary heads; None where there are none.
        stride: Of the logits.
        takes: Which maps of the encoder a head reads.
    """

    name: str
    choose_if: str
    what: str
    paper: str
    link: str
    config: dict[str, Any] = field(default_factory=dict)
    millions: float | None = None
    training_millions: float | None = None
    stride: int | None = None
    takes: str = ""


NETWORKS = (
    CatalogueRow(
        "segplus-unet", "you have few images, unlike photographs: microscopy, scans, satellite channels",
        "U-Net as published, with BatchNorm or without", "Ronneberger 2015", "https://arxiv.org/abs/1505.04597",
        {"num_channels": 1, "num_labels": 2, "norm": "none"}, 31.03, stride=1,
    ),
    CatalogueRow(
        "segplus-segnet", "you compare with the literature of its time; memory matters, time does not",
        "VGG16 and its mirror image, joined by pooling indices", "Badrinarayanan 2015",
        "https://arxiv.org/abs/1511.00561", {"num_labels": 11}, 29.45, stride=1,
    ),
    CatalogueRow(
        "segplus-enet", "there is room for no more than a third of a million parameters",
        "bottlenecks, dilated and asymmetric, nearly all of them at stride 8", "Paszke 2016",
        "https://arxiv.org/abs/1606.02147", {"num_labels": 11}, 0.350, stride=1,
    ),
    CatalogueRow(
        "segplus-espnetv2", "it must run on a small device, and its Cityscapes or VOC weights suit your images",
        "pyramids of dilated depthwise convolutions", "Mehta 2019", "https://arxiv.org/abs/1811.11431",
        {"num_labels": 20}, 0.789, stride=2,
    ),
    CatalogueRow(
        "segplus-bisenet", "you want the plain two-path network", "a path for detail beside a ResNet-18 for context",
        "Yu 2018", "https://arxiv.org/abs/1808.00897", {"num_labels": 19}, 13.24, 13.39, stride=8,
    ),
    CatalogueRow(
        "segplus-bisenetv2", "it must be fast and you have no pretrained weights",
        "two branches from the first layer on",
        "Yu 2020", "https://arxiv.org/abs/2004.02147", {"num_labels": 19}, 3.36, 5.23, stride=8,
    ),
    CatalogueRow(
        "segplus-ddrnet", "street scenes in real time; `width: 64, head_channels: 128` is DDRNet-23",
        "branches at strides 8 and 64 that exchange features twice", "Hong 2021", "https://arxiv.org/abs/2101.06085",
        {"num_labels": 19}, 5.70, 5.73, stride=8,
    ),
    CatalogueRow(
        "segplus-pidnet", "boundaries of small things matter, in real time",
        "a third branch learns boundaries and decides between detail and context", "Xu 2022",
        "https://arxiv.org/abs/2206.02066", {"num_labels": 19}, 7.63, 7.72, stride=8,
    ),
)  # fmt: skip

_LAST, _PYRAMID = "the last map", "a pyramid"
HEADS_LISTED = (
    CatalogueRow(
        "deeplabv3plus", "you want one safe choice",
        "dilated pyramid on the last map, joined with the map of stride 4", "Chen 2018",
        "https://arxiv.org/abs/1802.02611", takes="a map of stride 4, and the last",
    ),
    CatalogueRow(
        "deeplabv3", "objects are large; use output stride 8", "the dilated pyramid alone", "Chen 2017",
        "https://arxiv.org/abs/1706.05587", takes=_LAST,
    ),
    CatalogueRow(
        "unet", "edges and thin things count, images are small",
        "upsampling step by step, joined with every finer map", "Ronneberger 2015", "https://arxiv.org/abs/1505.04597",
        takes="a pyramid; begins at stride 2 where it can",
    ),
    CatalogueRow(
        "fpn", "batches are small, memory is short", "a top-down pyramid, all levels added; GroupNorm",
        "Kirillov 2019", "https://arxiv.org/abs/1901.02446", takes=_PYRAMID,
    ),
    CatalogueRow(
        "upernet", "accuracy matters more than time, on Swin or ConvNeXt", "pooled pyramid above a feature pyramid",
        "Xiao 2018", "https://arxiv.org/abs/1807.10221", takes=_PYRAMID,
    ),
    CatalogueRow(
        "pspnet", "the scene as a whole decides; use output stride 8", "the last map beside its means over grids",
        "Zhao 2017", "https://arxiv.org/abs/1612.01105", takes=_LAST,
    ),
    CatalogueRow(
        "mlp", "the encoder is a transformer with a pyramid, speed counts",
        "SegFormer's: every map projected, joined, mixed", "Xie 2021", "https://arxiv.org/abs/2105.15203",
        takes=_PYRAMID,
    ),
    CatalogueRow(
        "lraspp", "every millisecond counts", "the last map gated by its mean, beside the map of stride 8",
        "Howard 2019", "https://arxiv.org/abs/1905.02244", takes="a map of stride 8, and the last",
    ),
    CatalogueRow(
        "fcn", "you want a baseline", "a 3x3 convolution and a classifier; the auxiliary head is one", "Long 2015",
        "https://arxiv.org/abs/1411.4038", takes=_LAST,
    ),
    CatalogueRow(
        "fcn_fusion", "you compare with the paper", "FCN-32s, 16s, 8s: `fused_maps` 1, 2, 3", "Long 2015",
        "https://arxiv.org/abs/1411.4038", takes="as many maps as are fused",
    ),
    CatalogueRow(
        "segmenter_mask", "the encoder is a plain ViT and there are many classes",
        "patches and class tokens through a transformer", "Strudel 2021", "https://arxiv.org/abs/2105.05633",
        takes=_LAST,
    ),
    CatalogueRow(
        "segmenter_linear", "a baseline on a plain ViT that is trained whole", "a classifier of every patch",
        "Strudel 2021", "https://arxiv.org/abs/2105.05633", takes=_LAST,
    ),
    CatalogueRow(
        "linear_probe", "you ask what a DINOv2 or DINOv3 already knows",
        "BatchNorm and a classifier; set `freeze: [encoder]`", "Oquab 2023", "https://arxiv.org/abs/2304.07193",
        takes=_LAST,
    ),
    CatalogueRow(
        "setr_naive", "a baseline on a plain ViT", "two 1x1 convolutions", "Zheng 2021",
        "https://arxiv.org/abs/2012.15840", takes=_LAST,
    ),
    CatalogueRow(
        "setr_pup", "a plain ViT and smooth edges", "four convolutions, upsampling between them", "Zheng 2021",
        "https://arxiv.org/abs/2012.15840", takes=_LAST,
    ),
    CatalogueRow(
        "setr_mla", "a plain ViT whose layers differ", "four layers of a plain ViT, aggregated", "Zheng 2021",
        "https://arxiv.org/abs/2012.15840", takes="four maps of one stride",
    ),
)  # fmt: skip

# Of transformers, at the size of their default configs, 150 classes.
LIBRARY = (
    CatalogueRow(
        "segformer", "you want the first thing to try: B0 is small, B5 (84.7 M) accurate",
        "a transformer with a pyramid of maps under one MLP", "Xie 2021", "https://arxiv.org/abs/2105.15203",
        millions=3.75, stride=4,
    ),
    CatalogueRow(
        "dpt", "you have a GPU, and weights of a large ViT that suit your images",
        "a plain ViT whose layers become a pyramid again", "Ranftl 2021", "https://arxiv.org/abs/2103.13413",
        {"use_auxiliary_head": False}, 111.17, 111.80, stride=1,
    ),
    CatalogueRow(
        "upernet", "you want a checkpoint of Swin or ConvNeXt with its head",
        "a pooled pyramid above a feature pyramid", "Xiao 2018",
        "https://arxiv.org/abs/1807.10221", {"use_auxiliary_head": False}, 64.10, 66.50, stride=1,
    ),
    CatalogueRow(
        "beit", "you have its checkpoint", "UPerNet on a plain ViT that learned to fill in masked patches", "Bao 2021",
        "https://arxiv.org/abs/2106.08254", {"use_auxiliary_head": False}, 160.70, 162.51, stride=4,
    ),
    CatalogueRow(
        "data2vec-vision", "you have its checkpoint", "BEiT that learned its own averaged features", "Baevski 2022",
        "https://arxiv.org/abs/2202.03555", {"use_auxiliary_head": False}, 160.70, 162.51, stride=4,
    ),
    CatalogueRow(
        "mobilenet_v2", "it must run on a phone, and you want pretrained weights", "DeepLabV3 on MobileNetV2",
        "Sandler 2018", "https://arxiv.org/abs/1801.04381", millions=2.56, stride=32,
    ),
    CatalogueRow(
        "mobilevit", "it must run on a phone, and MobileNetV2 is not enough", "DeepLabV3 on MobileViT", "Mehta 2021",
        "https://arxiv.org/abs/2110.02178", millions=6.39, stride=32,
    ),
)  # fmt: skip


def describe_parameters(row: CatalogueRow) -> str:
    """Return a row's parameters in millions, with those of training where they are others."""
    if row.millions is None:
        return ""
    digits = 3 if row.millions < 1 else 2
    more = "" if row.training_millions is None else f", training {row.training_millions:.2f}"
    return f"{row.millions:.{digits}f}{more}"


def render_networks(rows: Sequence[CatalogueRow] = NETWORKS) -> str:
    """Return the table of whole networks in Markdown."""
    lines = ["| `model_type` | choose it if | parameters (M) | logits at stride |", "|---|---|---|---|"]
    lines += [f"| `{row.name}` | {row.choose_if} | {describe_parameters(row)} | {row.stride} |" for row in rows]
    return "\n".join(lines) + "\n"


def render_heads() -> str:
    """Return the table of heads in Markdown."""
    lines = ["| `head` | what it is | choose it if | takes | paper |", "|---|---|---|---|---|"]
    lines += [
        f"| `{row.name}` | {row.what} | {row.choose_if} | {row.takes} | [{row.paper}]({row.link}) |"
        for row in HEADS_LISTED
    ]
    return "\n".join(lines) + "\n"


def render_list() -> str:
    """Return what the terminal shows: every model and head with its parameters and when to choose it."""
    parts = {
        "Of transformers, model.config.model_type or model.checkpoint (parameters in millions)": LIBRARY,
        "Networks of segplus, model.config.model_type": NETWORKS,
        "Heads for any encoder, model.config.head with model_type segplus-encoder-head": HEADS_LISTED,
    }
    width = max(len(row.name) for rows in parts.values() for row in rows)
    lines: list[str] = []
    for title, rows in parts.items():
        lines += [title, ""]
        for row in rows:
            size = describe_parameters(row).split(",")[0]
            lines.append(f"  {row.name:{width}}  {size:>6}  choose it if {row.choose_if.replace('`', '')}")
        lines.append("")
    return "\n".join(lines)


def find_row(name: str) -> CatalogueRow | None:
    """Return the network, head or library model of a name, in this order; with or without `segplus-`."""
    rows = [*NETWORKS, *HEADS_LISTED, *LIBRARY]
    return next((row for row in rows if row.name == name), None) or next(
        (row for row in NETWORKS if row.name == f"segplus-{name}"), None
    )


def list_names() -> list[str]:
    """List every name that `find_row` knows."""
    return sorted({row.name for row in (*NETWORKS, *HEADS_LISTED, *LIBRARY)})


def describe_row(row: CatalogueRow) -> str:
    """Return what a model is, when to choose it, and the lines of a recipe that take it."""
    size = describe_parameters(row)
    lines = [f"{row.name}: {row.what} ({row.paper}, {row.link})", f"  choose it if {row.choose_if}"]
    lines += [f"  parameters (M): {size}"] if size else []
    lines += [f"  logits at stride {row.stride}"] if row.stride else [f"  takes {row.takes}"]
    is_head = row in HEADS_LISTED
    values = ["    model_type: segplus-encoder-head", f"    head: {row.name}"]
    values += ["    backbone: microsoft/resnet-50    # or any encoder, see docs/models.md"]
    return "\n".join([*lines, "", "model:", "  config:", *(values if is_head else [f"    model_type: {row.name}"])])
