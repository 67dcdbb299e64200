"""One contender: a saved model, or several whose scores are averaged, with the decision that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from segplus.errors import InputError
from segplus.images import ImageRange
from segplus.inference.checkpoint import Checkpoint, find_checkpoint, list_checkpoint_files
from segplus.inference.decision_file import Changes, change_decision
from segplus.inference.predictor import Predictor
from segplus.models.model_configs import expand_checkpoint
from segplus.recipe.evaluation_section import ProtocolRecipe
from segplus.recipe.paths import is_fold_folder
from segplus.recipe.postprocess_section import DecisionRecipe

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Ensemble:
    """Saved models of the same classes whose weights are not read yet.

    Args:
        members: One model, or several.
        decision: How their mean becomes a label map.
    """

    members: tuple[Checkpoint, ...]
    decision: DecisionRecipe

    @property
    def source(self) -> str:
        """The members' folders or Hub ids."""
        return ", ".join(member.source for member in self.members)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes."""
        return self.members[0].class_names

    @property
    def channels(self) -> int:
        """The number of channels of the images."""
        return self.members[0].channels

    @property
    def image_range(self) -> ImageRange | None:
        """The values that became 0 and 255 in the training images."""
        return self.members[0].image_range

    def digest_weights(self) -> str:
        """Return text that changes with the files that predictions come from."""
        return " ".join(member.digest_weights() for member in self.members)

    def describe_decision(self) -> dict[str, str]:
        """Return the decision as an entry of metrics.json; nothing where it is the most probable class."""
        told = self.decision.describe()
        return {"decision": told} if told else {}

    def load(
        self,
        protocol: ProtocolRecipe | None = None,
        device: str | torch.device | None = None,
        precision: str = "float32",
    ) -> Predictor:
        """Read the weights.

        Args:
            protocol: How predictions are formed.
            device: Where to run.
            precision: One of `PRECISIONS`: the type of the weights and of what the network computes.
        Raises:
            InputError: If weights are damaged or incomplete, or hold NaN or infinity.
        """
        members = [member.load_model(protocol, device, PRECISIONS[precision]) for member in self.members]
        return Predictor.join(members, self.decision, self.class_names)


def find_ensemble(
    sources: str | Sequence[str],
    decision: DecisionRecipe | Changes | None = None,
    *,
    trust_remote_code: bool = False,
) -> Ensemble:
    """Return one or several saved models with config and image processor, their weights unread.

    Args:
        sources: Folders or Hub ids; a folder that holds fold-0, fold-1, ... stands for all of these.
        decision: How probabilities become a label map; None is the one stored with the checkpoints, a mapping what to
            change of it.
        trust_remote_code: Run the model code that lies in a checkpoint.
    Raises:
        InputError: If a checkpoint cannot be used, they have different classes, images or decisions, or a decision
            names a class that there is not.
    """
    listed = [sources] if isinstance(sources, str) else list(sources)
    expanded = [folder for source in listed for folder in list_folds(source)]
    members = tuple(find_checkpoint(source, trust_remote_code=trust_remote_code) for source in expanded)
    _refuse_other_members(members)
    chosen = decision
    if not isinstance(chosen, DecisionRecipe):
        chosen = change_decision(_find_shared_decision(members), chosen or {})
    chosen.check_classes(members[0].class_names)
    return Ensemble(members, chosen)


def list_ensemble_files(sources: Sequence[str]) -> list[Path]:
    """Return the files in the checkpoints' folders; no result may be written over them."""
    return [path for source in sources for folder in list_folds(source) for path in list_checkpoint_files(folder)]


def list_folds(source: str) -> list[str]:
    """Return the runs of a folder that holds those of all folds; otherwise the source itself."""
    folder = Path(expand_checkpoint(source))
    if not folder.is_dir() or (folder / "config.json").exists():
        return [source]
    runs = [path for path in folder.iterdir() if is_fold_folder(path.name) and (path / "config.json").is_file()]
    return [str(path) for path in sorted(runs, key=lambda path: int(path.name.rpartition("-")[2]))] or [source]


def _refuse_other_members(members: Sequence[Checkpoint]) -> None:
    first = members[0]
    if len({member.source for member in members}) < len(members):
        raise InputError("ensemble: a checkpoint is named twice", found=", ".join(one.source for one in members))
    for other in members[1:]:
        for what in ("class_names", "channels", "image_range"):
            found = getattr(first, what), getattr(other, what)
            if found[0] != found[1]:
                raise InputError(
                    f"ensemble: {first.source} and {other.source} differ in their {what.replace('_', ' ')}",
                    found=f"{found[0]} and {found[1]}",
                    fix="average models that were trained on the same classes and channels, in the same order",
                )


def _find_shared_decision(members: Sequence[Checkpoint]) -> DecisionRecipe:
    found = [member.decision for member in members]
    for member, other in zip(members[1:], found[1:], strict=True):
        if replace(other, chosen_on={}) != replace(found[0], chosen_on={}):
            raise InputError(
                f"ensemble: {members[0].source} and {member.source} have different decisions",
                found=f"{found[0].describe() or 'the most probable class'}; {other.describe() or 'the same'}",
                fix="give one for all: --decision FILE, or --decision none for the most probable class",
            )
    return found[0]
