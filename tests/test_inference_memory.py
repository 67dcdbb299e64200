"""Peak memory of predictions: it follows the image and its label map, not classes times pixels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CLEAR = Path("/proc/self/clear_refs")
SIDE = 3000  # 9 megapixels: the scores of 40 classes at the image's size would take 1,373 MiB
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil
from segplus.inference import Predictor
from segplus.recipe.evaluation_section import ProtocolRecipe

def read_peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

config = SegformerConfig(hidden_sizes=[8, 8, 8, 8], depths=[1] * 4, num_attention_heads=[1] * 4,
                         decoder_hidden_size=8, num_labels=40)
model = SegformerForSemanticSegmentation(config)
if sys.argv[2] == "odd":
    forward = model.forward
    def extend(pixel_values):
        outputs = forward(pixel_values=pixel_values)
        outputs.logits = torch.nn.functional.pad(outputs.logits, (0, 1, 0, 1), mode="replicate")
        return outputs
    model.forward = extend
processor = SegformerImageProcessorPil(size={"height": 128, "width": 128})
image = Image.effect_noise((int(sys.argv[3]),) * 2, 80).convert("RGB")
predictor = Predictor(model, processor, ProtocolRecipe(**json.loads(sys.argv[1])))
predict = predictor.predict_with_confidence if sys.argv[2] == "confidence" else predictor.predict
small = image.resize((300, 300))
predict(small)
Path("/proc/self/clear_refs").write_text("5")
before = read_peak()
predict(image)
print(read_peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not CLEAR.exists(), reason="peak memory is read from Linux' /proc")
@pytest.mark.parametrize(
    ("protocol", "variant", "most_mib"),
    [
        # A label map takes 9 MiB, a confidence 34; an image processor copies the image several times, 26 MiB each.
        ({}, "labels", 150),
        ({"scales": [0.5, 1.0]}, "labels", 150),
        ({"scales": [0.5, 1.0]}, "confidence", 150),
        ({"name": "sliding", "window_px": [256, 256], "overlap": 0.0}, "labels", 130),
        ({"name": "sliding", "window_px": [256, 256], "overlap": 0.0}, "confidence", 200),
        # One row of windows, 40 x 256 x 3008 scores, takes 118 MiB.
        ({"name": "sliding", "window_px": [256, 256], "overlap": 0.0}, "odd", 330),
    ],
    ids=["fixed", "scales", "scales, confidence", "sliding", "sliding, confidence", "by pixels"],
)
def test_peak_memory(protocol: dict, variant: str, most_mib: int) -> None:
    command = [sys.executable, "-c", SCRIPT, json.dumps(protocol), variant, str(SIDE)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < most_mib
