"""ESPNetv2's weights as its authors published them, under segplus' names.

`python -m segplus.models.converters.espnetv2 WEIGHTS.safetensors FOLDER` writes a folder that `model.checkpoint` names.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from segplus.errors import InputError
from segplus.models.image_processor import load_image_processor
from segplus.models.networks.espnetv2 import ESPNetV2Config, ESPNetV2ForSemanticSegmentation
from segplus.recipe import ModelRecipe

# Each pattern is replaced once a key, in this order.
_RENAMED = (
    (r"^base_net\.level1\.", "backbone.stem."),
    (r"^base_net\.level([234])_0\.", lambda found: f"backbone.reduce.{int(found[1]) - 2}."),
    (r"^base_net\.level([34])\.(\d+)\.", r"backbone.stage\1.\2."),
    (r"^bu_dec_l1\.", "backbone.pyramid."),
    (r"^bu_dec_l([23])\.", lambda found: f"backbone.decoder.{int(found[1]) - 2}.pyramid."),
    (r"^bu_dec_l4\.", "classifier."),
    (r"^bu_br_l([234])\.0\.", lambda found: f"backbone.decoder.{int(found[1]) - 2}.norm."),
    (r"^bu_br_l([234])\.1\.", lambda found: f"backbone.decoder.{int(found[1]) - 2}.act."),
    (r"^merge_enc_dec_l([234])\.", lambda found: f"backbone.decoder.{int(found[1]) - 2}."),
    (r"\.eesp\.", ".pyramid."),
    (r"\.inp_reinf\.0\.", ".image."),
    (r"\.inp_reinf\.1\.", ".image_project."),
    (r"\.proj_1x1\.", ".project."),
    (r"\.spp_dw\.(\d)\.conv\.", r".branches.\1."),
    (r"\.br_after_cat\.bn\.", ".norm."),
    (r"\.br_after_cat\.act\.", ".norm_act."),
    (r"\.conv_1x1_exp\.", ".expand."),
    (r"\.module_act\.", ".act."),
    (r"(^|\.)stages\.", r"\1branches."),
    (r"\.projection_layer\.cbr\.", ".project."),
    (r"\.merge_layer\.0\.br\.0\.", ".norm."),
    (r"\.merge_layer\.0\.br\.1\.", ".norm_act."),
    (r"\.merge_layer\.2\.cbr\.", ".mix."),
    (r"\.merge_layer\.3\.", ".expand."),
    (r"\.br\.br\.", ".out."),
    (r"\.expansion_layer\.cbr\.", ".skip."),
    (r"\.wt_layer\.1\.", ".skip_weight."),
    (r"\.(project|mix|skip)\.0\.", r".\1.conv."),
    (r"\.(project|mix|skip)\.1\.", r".\1.norm."),
    (r"\.(project|mix|skip)\.2\.", r".\1.act."),
    (r"\.bn\.", ".norm."),
)
_CITYSCAPES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "background",
)  # fmt: skip
_VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_NAMES = {len(names): names for names in (_CITYSCAPES, _VOC)}
# The activation of a reducing block's pyramid, which the authors create and never call.
_UNUSED = re.compile(r"\.eesp\.module_act\.")


def convert_espnetv2(weights: Mapping[str, Tensor]) -> ESPNetV2ForSemanticSegmentation:
    """Return the network with the authors' weights.

    Args:
        weights: Tensors by the names of sacmehta/EdgeNets.
    Raises:
        InputError: If they are not those of an ESPNetv2 for segmentation.
    """
    renamed = {rename_key(key): tensor for key, tensor in weights.items() if not _UNUSED.search(key)}
    try:
        model = ESPNetV2ForSemanticSegmentation(read_config(renamed))
    except KeyError as error:
        raise _refuse([str(error.args[0])]) from None
    expected = model.state_dict()
    wrong = sorted(set(renamed) ^ set(expected)) or sorted(
        name for name, tensor in renamed.items() if tensor.shape != expected[name].shape
    )
    if wrong:
        raise _refuse(wrong)
    model.load_state_dict(renamed)
    return model.eval()


def rename_key(key: str) -> str:
    """Return segplus' name of one of the authors'."""
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key, count=1)
    return key


def read_config(weights: Mapping[str, Tensor]) -> ESPNetV2Config:
    """Return the config whose network has tensors of these shapes, by segplus' names."""
    depths = [
        len({name.split(".")[2] for name in weights if name.startswith(f"backbone.stage{level}.")}) for level in (3, 4)
    ]
    num_labels = len(weights["classifier.expand.bias"])
    names = _NAMES.get(num_labels, [f"LABEL_{index}" for index in range(num_labels)])
    return ESPNetV2Config(
        num_channels=weights["backbone.stem.conv.weight"].shape[1],
        stem_channels=len(weights["backbone.stem.conv.weight"]),
        hidden_sizes=[len(weights[f"backbone.reduce.{level}.act.weight"]) for level in range(3)],
        depths=depths,
        pyramid_channels=len(weights["classifier.project.conv.weight"]),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )


def _refuse(names: Sequence[str]) -> InputError:
    return InputError(
        "these are not the weights of an ESPNetv2 for segmentation",
        found=f"{len(names)} tensors that do not fit: {', '.join(names[:3])}",
        fix="give a file of sacmehta/EdgeNets, model/segmentation/model_zoo/espnetv2",
    )


def main(arguments: Sequence[str]) -> None:
    """Convert one file of weights to a folder with config and image processor."""
    if len(arguments) != 2:
        raise SystemExit(__doc__)
    weights, folder = arguments
    try:
        model = convert_espnetv2(load_file(weights))
        model.save_pretrained(folder)
    except (InputError, OSError, SafetensorError) as error:
        raise SystemExit(f"{weights}: {error}") from None
    # The sizes that the authors trained with.
    height, width = (384, 384) if model.config.num_labels == len(_VOC) else (512, 1024)
    size = {"height": height, "width": width}
    load_image_processor(ModelRecipe(checkpoint=folder, image_processor={"size": size}), model.config).save_pretrained(
        folder
    )


if __name__ == "__main__":
    main(sys.argv[1:])
