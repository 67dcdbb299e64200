"""Label maps of images, by the exported model that lies beside this file: python run.py IMAGES OUT.

It needs NumPy, Pillow and one of onnxruntime (.onnx), openvino (.xml) and torch (.pt2); see README.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".npy"}
LEAST_SCORE = 1e-30  # where no query of a mask transformer has a mask, all classes are alike
Settings = dict[str, Any]
Array = Any  # numpy.ndarray
Run = Callable[[dict[str, Array]], list[Array]]  # inputs by name -> label maps, and logits where the graph gives them


def read_image(path: Path, settings: Settings) -> Array:
    """Return an image, upright, shape (H, W, channels), transparency on white; .npy holds (H, W, channels) as it is."""
    if path.suffix == ".npy":
        array = np.load(path, allow_pickle=False)
    else:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if settings["channels"] == 3 and ("A" in image.mode or "transparency" in image.info):
                layered = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", layered.size, (255, 255, 255, 255)), layered)
            is_deep = image.mode.startswith("I") or image.mode == "F"
            array = np.asarray(image.convert("RGB") if settings["channels"] == 3 and not is_deep else image)
            if settings["channels"] == 3 and is_deep:
                array = np.repeat(array[..., None], 3, axis=2)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] != settings["channels"]:
        raise SystemExit(f"{path}: shape {array.shape}, but the model takes {settings['channels']} channels")
    return array


def scale_depth(image: Array, settings: Settings) -> Array:
    """Return an image of 8 bits, or as float32 from 0 to 255 where the model was trained on deeper ones."""
    if image.dtype == np.uint8:
        return image
    stated = settings["image_range"]
    if stated is None:
        raise SystemExit(f"values of type {image.dtype}, but the model was trained on 8 bits")
    low, high = stated["low"], stated["high"]
    if not stated["clip"] and (image.min() < low or image.max() > high):
        raise SystemExit(f"values {image.min()} to {image.max()} outside of the range {low} to {high}")
    scaled = ((image.astype(np.float64) - low) * (255.0 / (high - low))).clip(0, 255).astype(np.float32)
    return np.rint(scaled).astype(np.uint8) if stated["round"] else scaled


def find_size(height: int, width: int, settings: Settings) -> tuple[int, int]:
    """Return the (height, width) that the network gets of an image of this size."""
    size = settings["size"]
    if size is None:
        return height, width
    if "height" in size:
        return size["height"], size["width"]
    edge = size["shortest_edge"]
    if height < width:
        return edge, int(edge * width / height)
    return int(edge * height / width), edge


def make_pixel_values(image: Array, settings: Settings) -> Array:
    """Return what the network gets, float32, shape (1, channels, h, w): resized by Pillow, scaled, channels first."""
    image = scale_depth(image, settings)
    height, width = find_size(image.shape[0], image.shape[1], settings)
    if image.shape[:2] != (height, width):
        filter_ = Image.Resampling(settings["resample"])
        if image.shape[2] == 3 and image.dtype == np.uint8:
            image = np.asarray(Image.fromarray(image).resize((width, height), filter_))
        else:
            planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(image, 2, 0)]
            image = np.stack([np.asarray(plane.resize((width, height), filter_)) for plane in planes], axis=2)
    values = image * np.float32(settings["factor"]) + np.float32(settings["offset"])
    return np.ascontiguousarray(values[..., settings["channel_order"]].transpose(2, 0, 1)[None], dtype=np.float32)


def open_onnx(path: Path) -> Run:
    """Return an ONNX graph, run by ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda inputs: list(session.run(None, inputs))


def open_openvino(path: Path) -> Run:
    """Return an OpenVINO model, run on the CPU."""
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: [np.asarray(compiled(inputs)[output]) for output in compiled.outputs]


def open_torch(path: Path, decision: Settings | None) -> Run:
    """Return a program of torch.export; its scores are resized and decided on here."""
    import torch

    network = torch.export.load(str(path)).module()

    def run(inputs: dict[str, Array]) -> list[Array]:
        with torch.no_grad():
            logits = network(torch.from_numpy(inputs["pixel_values"]))
            size = inputs["size"].tolist()
            resized = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        labels = resized.argmax(1) if decision is None else decide(find_shares(resized, decision["scores"]), decision)
        return [labels.numpy(), logits.numpy()]

    return run


def find_shares(scores: Any, kind: str) -> Any:
    """Return probabilities of logits, or of the class scores of a mask transformer; a tensor (N, C, H, W) each."""
    if kind == "logits":
        return scores.softmax(1)
    return (scores + LEAST_SCORE) / (scores + LEAST_SCORE).sum(1, keepdim=True)


def decide(shares: Any, decision: Settings) -> Any:
    """Return class ids by thresholds, a tensor (N, H, W), of probabilities (N, C, H, W), as the other graphs do."""
    import torch

    given = shares.new_tensor([one or torch.inf for one in decision["thresholds"]])
    limited, fallback = given.isfinite(), decision["fallback"]
    best, greatest = (shares / given[:, None, None]).max(1)
    if fallback is not None:
        most = shares.argmax(1)
        others = torch.where(limited[most], fallback, most)
    else:
        others = greatest if limited.all() else (shares - limited.float()[:, None, None]).argmax(1)
    ids = torch.where(best >= 1, greatest, others)
    confidence = shares.gather(1, ids[:, None])[:, 0]
    return torch.where(confidence < decision["uncertain_below"], decision["no_class"], ids)


OPENERS = {".onnx": open_onnx, ".xml": open_openvino}


class Network:
    """One graph of an exported folder.

    Args:
        folder: The folder; it holds segplus_export.json.
        graph: Name of the graph's file; by default the first one listed.
    """

    def __init__(self, folder: Path, graph: str | None = None) -> None:
        facts = json.loads((folder / "segplus_export.json").read_text(encoding="utf-8"))
        self.settings: Settings = facts["preprocessing"]
        name = graph or next(iter(facts["graphs"]))
        if name not in facts["graphs"]:
            raise SystemExit(f"--graph {name}: there is none; choose one of {', '.join(facts['graphs'])}")
        self.inputs: list[str] = facts["graphs"][name]["inputs"]
        path, opener = folder / name, OPENERS.get(Path(name).suffix)
        self.run = open_torch(path, facts["decision"]) if opener is None else opener(path)

    def feed(self, image: Array) -> dict[str, Array]:
        """Return the graph's inputs for an image, shape (H, W, channels)."""
        height, width = image.shape[:2]
        if "image" in self.inputs:
            inputs = {"image": scale_depth(image, self.settings)}
            served = np.array(find_size(height, width, self.settings), np.int64)
            return {**inputs, "served_size": served} if "served_size" in self.inputs else inputs
        return {"pixel_values": make_pixel_values(image, self.settings), "size": np.array([height, width], np.int64)}

    def label(self, image: Array) -> Array:
        """Return the class ids of an image's pixels, shape (H, W)."""
        labels = self.run(self.feed(image))[0]
        return labels.reshape(labels.shape[-2:])


def main() -> None:
    """Write the label map of every image as a PNG of class ids."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="an image, or a folder of images")
    parser.add_argument("out", type=Path, help="folder of the label maps")
    parser.add_argument("--graph", help="file of the graph; default: the first one that segplus_export.json lists")
    options = parser.parse_args()
    network = Network(Path(__file__).resolve().parent, options.graph)
    found = sorted(options.images.rglob("*")) if options.images.is_dir() else [options.images]
    images = [path for path in found if path.suffix.lower() in SUFFIXES]
    root = options.images if options.images.is_dir() else options.images.parent
    for path in images:
        labels = network.label(read_image(path, network.settings))
        target = (options.out / path.relative_to(root)).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels.astype(np.uint8 if labels.max() < 256 else np.uint16)).save(target)
    print(f"{len(images)} label maps lie in {options.out}")


if __name__ == "__main__":
    main()
