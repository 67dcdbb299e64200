"""ESPNetv2 with its authors' weights computes what their code computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from segplus.errors import InputError
from segplus.models import load_segmentation_checkpoint
from segplus.models.converters.espnetv2 import convert_espnetv2, main

CHECKPOINTS = ("espnetv2_s_2.0_city_1024x512", "espnetv2_s_1.0_city_1024x512", "espnetv2_s_2.0_pascal_384x384")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_upsampled_as_the_authors_do_logits_are_theirs(test_data: Path, name: str) -> None:
    folder = test_data / "models" / "espnetv2"
    model = convert_espnetv2(load_file(folder / f"{name}.safetensors"))
    with np.load(folder / "reference_logits.npz") as reference:
        for photo_or_noise in ("photo", "noise"):
            pixel_values = torch.from_numpy(reference[photo_or_noise])
            with torch.no_grad():
                logits = model(pixel_values).logits
            size = pixel_values.shape[-2:]
            assert logits.shape[-2:] == (size[0] // 2, size[1] // 2)
            full = F.interpolate(logits, size=size, mode="bilinear", align_corners=True)
            assert np.abs(full[..., ::4, ::4].numpy() - reference[f"{name}/{photo_or_noise}"]).max() < 1e-4


def test_a_converted_folder_is_a_checkpoint(test_data: Path, tmp_path: Path) -> None:
    source = test_data / "models" / "espnetv2" / f"{CHECKPOINTS[1]}.safetensors"
    main([str(source), str(tmp_path)])
    model = load_segmentation_checkpoint(str(tmp_path))
    assert (model.config.id2label[0], model.config.id2label[13]) == ("road", "car")
    assert model.config.hidden_sizes == [64, 128, 256]
    pixel_values = torch.randn(1, 3, 65, 90)
    assert torch.equal(model(pixel_values).logits, convert_espnetv2(load_file(source))(pixel_values).logits)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the weights of an ESPNetv2"):
        convert_espnetv2({"stem.weight": torch.zeros(3)})
    save_file({"stem.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(SystemExit, match=r"other.safetensors: these are not the weights"):
        main([str(tmp_path / "other.safetensors"), str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="WEIGHTS.safetensors FOLDER"):
        main([])
