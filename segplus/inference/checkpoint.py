"""A saved model with what is needed to predict: checked against the data before its weights are read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import AutoImageProcessor, BaseImageProcessor, PreTrainedConfig

from segplus.classes import ClassMap
from segplus.data.contents import digest_contents, stamp_entries
from segplus.errors import InputError
from segplus.images import ImageRange
from segplus.inference.decision_file import find_decision
from segplus.inference.predictor import Predictor
from segplus.inference.scored_model import ScoredModel
from segplus.models import count_channels, find_image_range, load_segmentation_checkpoint
from segplus.models.image_processor import check_image_processor
from segplus.models.library_failures import explain_failures, quiet_transformers
from segplus.models.model_configs import expand_checkpoint, load_config, refuse_other_tasks
from segplus.models.stored_files import refuse_damaged_model
from segplus.recipe import DataRecipe
from segplus.recipe.evaluation_section import ProtocolRecipe
from segplus.recipe.postprocess_section import DecisionRecipe
from segplus.transforms.serving import try_image_processor

_PROCESSOR_KEYS = ("image_processor_type", "feature_extractor_type", "size", "do_resize", "do_normalize", "image_mean")
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "config.json", "p*processor_config.json")


@dataclass(frozen=True)
class Checkpoint:
    """A saved model whose weights are not read yet.

    Args:
        source: Folder or Hub id.
        config: Its config.
        image_processor: Its image processor.
        trust_remote_code: Run the model code that lies in the checkpoint.
        decision: How its probabilities become a label map: what lies beside it, or else the most probable class.
    """

    source: str
    config: PreTrainedConfig
    image_processor: BaseImageProcessor
    trust_remote_code: bool = False
    decision: DecisionRecipe = field(default_factory=DecisionRecipe)

    @property
    def class_names(self) -> list[str]:
        """The names of the model's classes."""
        names = dict(self.config.id2label or {})
        return [str(names[index]) for index in range(len(names))]

    def digest_weights(self) -> str:
        """Return text that changes with the files that predictions come from, or the commit of a model of the Hub."""
        folder = Path(self.source)
        if not folder.is_dir():
            return str(self.config._commit_hash)
        files = sorted(str(path) for pattern in _WEIGHTS for path in folder.glob(pattern))
        return digest_contents(files, stamp_entries(files))

    @property
    def channels(self) -> int:
        """The number of channels of the images that the model takes."""
        return count_channels(self.config)

    @property
    def image_range(self) -> ImageRange | None:
        """The values that became 0 and 255 in the training images, where they were deeper than 8 bits."""
        return find_image_range(self.image_processor)

    def load(self, protocol: ProtocolRecipe | None = None, device: str | torch.device | None = None) -> Predictor:
        """Read the weights.

        Args:
            protocol: How predictions are formed.
            device: Where to run.
        Raises:
            InputError: If the weights are damaged or incomplete, or hold NaN or infinity.
        """
        return Predictor.join([self.load_model(protocol, device)], self.decision, self.class_names)

    def load_model(
        self,
        protocol: ProtocolRecipe | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> ScoredModel:
        """Read the weights, for a predictor of one model or several; see `load`."""
        model = load_segmentation_checkpoint(self.source, trust_remote_code=self.trust_remote_code).to(dtype)
        return ScoredModel(model, self.image_processor, protocol or ProtocolRecipe(), device, self.channels)

    def fit_section(self, section: DataRecipe) -> DataRecipe:
        """Return a data section whose images are read as those that the model was trained on.

        Channels and range that the section leaves at their defaults are the checkpoint's. A model that was trained on 8
        bits gets 8 bits, of any range that the section states.

        Raises:
            InputError: If the section names another number of channels, or another range than the model was trained on.
        """
        if section.channels not in (3, self.channels):
            raise InputError(
                f"checkpoint {self.source}: takes images with other channels than the data's",
                found=f"data.channels: {section.channels}",
                allowed=self.channels,
                fix="choose the checkpoint that was trained on these channels",
            )
        own, given = self.image_range, section.image_range
        stated = None if given is None else ImageRange.parse(given)
        if own is not None and not own.round:
            if stated not in (None, own):
                raise InputError(
                    f"checkpoint {self.source}: was trained on another range of values",
                    found=f"data.image_range: {given}",
                    allowed=f"{own.low:g} to {own.high:g}" + (", clipped" if own.clip else ""),
                    fix="leave data.image_range out",
                )
            return replace(section, channels=self.channels, image_range=own.state())
        chosen = stated or own
        rounded = None if chosen is None else replace(chosen, round=True).state()
        return replace(section, channels=self.channels, image_range=rounded)

    def refuse_other_classes(self, classes: ClassMap) -> None:
        """Refuse a model whose classes are not those of the data.

        Raises:
            InputError: If the number differs, or a name that both have stands at another index.
        """
        names = self.class_names
        if len(names) != classes.num_classes:
            raise InputError(
                f"checkpoint {self.source}: its classes are not those of the data",
                found=f"{len(names)} classes in the checkpoint, {classes.num_classes} in the data",
                allowed=", ".join(classes.names[:8]) + (" ..." if classes.num_classes > 8 else ""),
                fix="give the data's classes, reduce_labels, void and merge as they were in training",
            )
        for index, (name, wanted) in enumerate(zip(names, classes.names, strict=True)):
            if name != wanted and (name in classes.names or wanted in names):
                raise InputError(
                    f"checkpoint {self.source}: its classes stand in another order than the data's",
                    found=f"class {index} is '{name}' in the checkpoint, '{wanted}' in the data",
                    fix="list data.classes in the checkpoint's order",
                )


def find_checkpoint(source: str, *, trust_remote_code: bool = False) -> Checkpoint:
    """Return a saved model with config and image processor, its weights unread.

    Args:
        source: Folder or Hub id; `${NAME}` stands for an environment variable.
        trust_remote_code: Run the model code that lies in the checkpoint.
    Raises:
        InputError: If there is no such checkpoint, it is damaged, it holds a model for another task, or it lacks a
            config or an image processor, or these have values that cannot be.
    """
    expanded = expand_checkpoint(source)
    refuse_damaged_model(expanded, "checkpoint")
    config = load_config(expanded, "checkpoint", trust_remote_code=trust_remote_code)
    _refuse_odd_classes(config, expanded)
    with quiet_transformers(), explain_failures("checkpoint", expanded):
        refuse_other_tasks(config, f"checkpoint {expanded}")
        stated, _ = BaseImageProcessor.get_image_processor_dict(expanded)
        processor = AutoImageProcessor.from_pretrained(expanded, trust_remote_code=trust_remote_code)
    key, channels = f"checkpoint {expanded}: preprocessor_config.json", count_channels(config)
    if not isinstance(processor, BaseImageProcessor):
        raise InputError(f"{key}.image_processor_type", found=type(processor).__name__, allowed="an image processor")
    if not any(name in stated for name in _PROCESSOR_KEYS):  # transformers would take the defaults of the model's type
        raise InputError(f"{key}: of no image processor", found=", ".join(map(str, stated))[:200] or "nothing")
    check_image_processor(processor, channels, key)
    try_image_processor(processor, channels, key)
    decision = find_decision(expanded, None if Path(expanded).is_dir() else config._commit_hash)
    decision.check_classes([str(name) for name in config.id2label.values()])
    return Checkpoint(expanded, config, processor, trust_remote_code, decision)


def list_checkpoint_files(source: str) -> list[Path]:
    """Return the files of a checkpoint's folder, none of a model of the Hub; no result may be written over them."""
    folder = Path(expand_checkpoint(source))
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _refuse_odd_classes(config: PreTrainedConfig, source: str) -> None:
    ids = list(config.id2label or {})
    if sorted(ids) != list(range(len(ids))) or not ids:
        raise InputError(
            f"checkpoint {source}: config.json: id2label",
            found=", ".join(map(str, ids[:8])),
            allowed="an entry for each class id from 0 on, without gaps",
        )
    odd = [name for name in config.id2label.values() if not isinstance(name, str)]
    if odd:
        raise InputError(f"checkpoint {source}: config.json: id2label", found=odd[0], allowed="names that are text")


def choose_device(device: str | torch.device | None, local_rank: int = 0) -> torch.device:
    """Return the device asked for, or the process's own accelerator, or the CPU."""
    if device is not None:
        return torch.device(device)
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
