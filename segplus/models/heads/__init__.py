"""The heads, by the name that a config gives."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from torch import nn

from segplus.models.heads.blocks import SegmentationHead
from segplus.models.heads.deeplabv3 import DeepLabV3Head
from segplus.models.heads.deeplabv3plus import DeepLabV3PlusHead
from segplus.models.heads.fcn import FCNFusionHead, FCNHead
from segplus.models.heads.fpn import FPNHead
from segplus.models.heads.linear_probe import LinearProbeHead
from segplus.models.heads.lraspp import LRASPPHead
from segplus.models.heads.mlp import AllMLPHead
from segplus.models.heads.pspnet import PSPHead
from segplus.models.heads.segmenter import SegmenterLinearHead, SegmenterMaskHead
from segplus.models.heads.setr import SETRMLAHead, SETRNaiveHead, SETRPUPHead
from segplus.models.heads.unet_decoder import UNetDecoderHead
from segplus.models.heads.upernet import UPerHead

HEADS: dict[str, type[SegmentationHead]] = {
    "deeplabv3": DeepLabV3Head,
    "deeplabv3plus": DeepLabV3PlusHead,
    "fcn": FCNHead,
    "fcn_fusion": FCNFusionHead,
    "fpn": FPNHead,
    "linear_probe": LinearProbeHead,
    "lraspp": LRASPPHead,
    "mlp": AllMLPHead,
    "pspnet": PSPHead,
    "segmenter_linear": SegmenterLinearHead,
    "segmenter_mask": SegmenterMaskHead,
    "setr_mla": SETRMLAHead,
    "setr_naive": SETRNaiveHead,
    "setr_pup": SETRPUPHead,
    "unet": UNetDecoderHead,
    "upernet": UPerHead,
}


def find_head(name: str) -> type[SegmentationHead]:
    """Return the head of a name.

    Raises:
        ValueError: If there is none; it names the nearest.
    """
    if name not in HEADS:
        raise ValueError(f"head: unknown head '{name}'; {name_nearest(str(name), list(HEADS))}")
    return HEADS[name]


def check_head_values(name: str, values: dict[str, Any]) -> None:
    """Refuse values that the head does not have, or of another type than its own.

    Raises:
        ValueError: With the nearest name, or the type that is wanted.
    """
    check_part_values(find_head(name), name, values, "head_config")


def check_part_values(part: type[nn.Module], name: str, values: dict[str, Any], section: str) -> None:
    """Refuse values that are no keyword-only arguments of a part of a model, or of another type.

    Args:
        part: Its class.
        name: What the config calls it.
        values: What the config says of it.
        section: The config's key that holds them.
    Raises:
        ValueError: With the nearest name, or the type that is wanted.
    """
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(part.__init__).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for key, value in values.items():
        if key not in parameters:
            nearest = name_nearest(str(key), list(parameters)) if parameters else "it has no values of its own"
            raise ValueError(f"{section}: {name} has no '{key}'; {nearest}")
        wanted = str(parameters[key].annotation)
        if not any(_matches(value, type_name) for type_name in wanted.split(" | ")):
            raise ValueError(f"{section}.{key}: found {value!r}, wanted {wanted}")


def name_nearest(name: str, allowed: list[str]) -> str:
    """Return the sentence that names the nearest allowed word, or all of them."""
    near = difflib.get_close_matches(name.lower(), allowed, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"choose one of: {', '.join(sorted(allowed))}"


def _matches(value: object, type_name: str) -> bool:
    numbers = isinstance(value, int | float) and not isinstance(value, bool)
    if type_name == "int":
        return numbers and isinstance(value, int) and value > 0
    if type_name == "float":
        return numbers and 0 <= float(str(value)) <= 1
    if type_name == "bool":
        return isinstance(value, bool)
    if type_name == "None":
        return value is None
    return isinstance(value, list | tuple) and bool(value) and all(_matches(item, "int") for item in value)
