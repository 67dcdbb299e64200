"""Callbacks: the lines of a training log, the image panel, and the ones that people bring."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import IntervalStrategy, PrinterCallback, ProgressCallback, Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.metrics import label_map
from segplus.models.mask_transformers import compute_scores
from segplus.progress import is_quiet
from segplus.recipe.imports import import_object
from segplus.reporting.drawing import draw_panel_grid
from segplus.reporting.examples import Example
from segplus.reporting.table import describe_extremes
from segplus.training.guard import DivergenceGuard
from segplus.training.meters import StepMeters
from segplus.training.progress_lines import ProgressLines


class ProgressBars(ProgressCallback):
    """The library's progress bars; the lines are StepLog's."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Write nothing: the library's own line is a dict of every figure."""


class StepLog(TrainerCallback):
    """One readable line for each training and evaluation entry, above a progress bar where there is one.

    Args:
        class_names: For the best and the worst class of an evaluation.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = list(class_names)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Write the line."""
        if not state.is_world_process_zero or is_quiet():
            return
        if "loss" in logs:
            tqdm.write(_format_training_line(logs, state.global_step, state.max_steps))
        elif "eval_mean_iou" in logs:
            tqdm.write(_format_evaluation_line(logs, self._class_names))


def _format_training_line(logs: Mapping[str, float], step: int, max_steps: int) -> str:
    parts = "".join(
        f"  {key.removeprefix('loss/')} {value:.4f}" for key, value in logs.items() if key.startswith("loss/")
    )
    skipped = f"  skipped {logs['skipped_steps']:.0f}" if "skipped_steps" in logs else ""
    return (
        f"step {step}/{max_steps}  epoch {logs['epoch']:.2f}  loss {logs['loss']:.4f}{parts}"
        f"  grad {logs.get('grad_norm', 0.0):.2f}  lr {logs['learning_rate']:.2e}"
        f"  {logs['images_per_second']:.1f} images/s  data wait {100 * logs['data_wait_share']:.1f} %{skipped}"
    )


def _format_evaluation_line(logs: Mapping[str, float], class_names: Sequence[str]) -> str:
    iou = [logs.get(f"eval_iou/{name}", float("nan")) for name in class_names]
    extremes = describe_extremes({"per_category_iou": iou}, class_names)
    return (
        f"evaluation  epoch {logs['epoch']:.2f}  mIoU {100 * logs['eval_mean_iou']:.2f} %"
        f"  accuracy {100 * logs['eval_overall_accuracy']:.2f} %  loss {logs['eval_loss']:.4f}  {extremes}"
    )


class PredictionPanel(TrainerCallback):
    """Draws a few fixed validation images into TensorBoard at every evaluation.

    Args:
        tensorboard: The library's callback, whose writer is used.
        examples: Images with their truth; the prediction is filled in.
        pixel_values: What the image processor makes of them, one tensor (3, h, w) each.
        classes: For colours.
    """

    def __init__(
        self,
        tensorboard: TensorBoardCallback,
        examples: Sequence[Example],
        pixel_values: Sequence[torch.Tensor],
        classes: ClassMap,
    ) -> None:
        self._tensorboard = tensorboard
        self._examples = list(examples)
        self._pixel_values = list(pixel_values)
        self._classes = classes

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Predict the panel's images and draw them beside one another."""
        if not state.is_world_process_zero or self._tensorboard.tb_writer is None:
            return
        was_training = model.training
        model.eval()
        shown = []
        for example, pixels in zip(self._examples, self._pixel_values, strict=True):
            with torch.no_grad():
                scores = compute_scores(model, pixels[None].to(model.device))
            predicted = label_map(scores, example.truth.shape)[0].cpu().numpy()
            shown.append(Example(example.name, example.image, example.truth, predicted))
        model.train(was_training)
        grid = draw_panel_grid(shown, self._classes)
        self._tensorboard.tb_writer.add_image("validation", grid, state.global_step, dataformats="HWC")


def load_callbacks(entries: Sequence[str | Mapping[str, Mapping[str, Any]]]) -> list[TrainerCallback]:
    """Return an instance of each TrainerCallback class that is named by a dotted path, alone or with its arguments.

    Raises:
        InputError: If a module or class does not exist, the class is no TrainerCallback, or it refuses its arguments.
    """
    named = [{entry: {}} if isinstance(entry, str) else entry for entry in entries]
    return [_load_callback(name, arguments) for entry in named for name, arguments in entry.items()]


def _load_callback(name: str, arguments: Mapping[str, Any]) -> TrainerCallback:
    callback_class = import_object(name, "callbacks")
    if not (isinstance(callback_class, type) and issubclass(callback_class, TrainerCallback)):
        raise InputError(f"callbacks: '{name}' is no transformers.TrainerCallback", found=repr(callback_class))
    try:
        return callback_class(**arguments)
    except (TypeError, ValueError, RuntimeError, ImportError) as error:
        known = [parameter for parameter in inspect.signature(callback_class).parameters if parameter != "kwargs"]
        raise InputError(
            f"callbacks: cannot make '{name}'", found=error, allowed=f"arguments: {', '.join(known) or 'none'}"
        ) from None


class EpochClock(TrainerCallback):
    """Tells data set and sampler the epoch, also after a resume and in every process.

    accelerate's own set_epoch reaches only the sampler of a plain loader; sharded and fast-forwarded loaders hide it.

    Args:
        clocked: Training set and sampler.
    """

    def __init__(self, *clocked: Any) -> None:
        self._clocked = clocked

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """Set the epoch that the loader is about to draw."""
        steps_per_epoch = max(math.ceil(len(train_dataloader) / args.gradient_accumulation_steps), 1)
        for target in self._clocked:
            target.set_epoch(state.global_step // steps_per_epoch)


class StepClock(TrainerCallback):
    """Stops the clock after each step, and has the steps before an evaluation, a checkpoint and the end logged.

    So evaluating and saving count in no rate, and what a checkpoint's history holds is whole: a run that goes on from
    it adds up.

    Args:
        meters: Their clock is stopped.
        guard: Gets the number of steps that were skipped before a resume.
    """

    def __init__(self, meters: StepMeters, guard: DivergenceGuard) -> None:
        self._meters, self._guard = meters, guard

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take up the count of skipped steps from the history, which is empty where the run begins."""
        self._guard.skipped_steps = max((int(entry.get("skipped_steps", 0)) for entry in state.log_history), default=0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock, and ask for a line where the library did not."""
        self._meters.stop_step()
        ends = control.should_evaluate or control.should_save or control.should_training_stop
        control.should_log |= ends and args.logging_strategy != IntervalStrategy.NO

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Likewise."""
        self.on_step_end(args, state, control)


def install_log(trainer: Trainer, class_names: Sequence[str]) -> None:
    """Put StepLog, and bars, or lines where training.disable_tqdm, in place of the library's own log callbacks."""
    trainer.remove_callback(PrinterCallback if trainer.args.disable_tqdm else ProgressCallback)
    trainer.add_callback(ProgressLines() if trainer.args.disable_tqdm else ProgressBars())
    trainer.add_callback(StepLog(class_names))


def install_panel(
    trainer: Trainer, examples: Sequence[Example], pixel_values: Sequence[torch.Tensor], classes: ClassMap
) -> None:
    """Send an image panel to TensorBoard, where the run reports to it, and keep all of a run's logs in one folder."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = str(Path(trainer.args.output_dir) / "logs")
            trainer.add_callback(PredictionPanel(callback, examples, pixel_values, classes))
            return
