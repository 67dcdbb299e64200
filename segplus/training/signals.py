"""Ctrl-C and SIGTERM: training writes a checkpoint after the step or the evaluation's batch that it is in, and ends."""

from __future__ import annotations

import multiprocessing.queues
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed
from transformers import IntervalStrategy, TrainerCallback

from segplus.training.interruption import SIGNALS, EvaluationInterruptedError, OwedWork, TrainingInterruptedError
from segplus.training.resumption import ResumableTrainer


@contextmanager
def stop_on_signals(trainer: ResumableTrainer) -> Iterator[None]:
    """Let SIGINT and SIGTERM end this trainer's training with a checkpoint; a second one ends the process at once.

    Args:
        trainer: It gets a callback.
    Raises:
        TrainingInterruptedError: In every process, once the checkpoint is written.
    """
    stop = _StopAfterCheckpoint(trainer)
    trainer.add_callback(stop)
    before = {number: signal.signal(number, stop.take) for number in SIGNALS}
    try:
        yield
    except TrainingInterruptedError as error:
        if trainer.is_world_process_zero():
            print(error, flush=True)
        if distributed.is_initialized():
            distributed.barrier()  # the launcher ends every process as soon as one has ended
        raise
    finally:
        trainer.remove_callback(stop)
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.received:  # after the last step's checkpoint: what follows has the usual handlers
        signal.raise_signal(stop.received)


class _StopAfterCheckpoint(TrainerCallback):
    """Has a checkpoint written at the next place from which a run goes on as if it had never stopped.

    Args:
        trainer: Told what of the checkpoint's step a run that goes on must make up for.
    """

    def __init__(self, trainer: ResumableTrainer) -> None:
        self._trainer = trainer
        self._process = os.getpid()
        self.received = 0
        self._ends_with = 0

    def take(self, number: int, frame: object) -> None:
        """Remember the first signal; the next one, of either sort, finds the usual handler."""
        if os.getpid() != self._process:  # a worker that was forked a moment ago
            return
        self.received = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.environ.get("RANK", "0") == "0":
            name = SIGNALS[signal.Signals(number)]
            # Not print: the signal may have come in the midst of one.
            os.write(2, f"\n{name}: a checkpoint is written after this step; once more ends at once\n".encode())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint, unless the epoch ends here: its evaluation belongs before the checkpoint."""
        number = self._agree(args.device)
        if number and not control.should_training_stop and state.epoch != int(state.epoch):
            self._ask(number, args, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for the checkpoint that the epoch's last step left out."""
        number = self._agree(args.device)
        if number:
            self._ask(number, args, control)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End an evaluation after this batch."""
        number = self._agree(args.device)
        if number:
            raise EvaluationInterruptedError(number, state.global_step)

    def _ask(self, number: int, args: Any, control: Any) -> None:
        self._ends_with = number
        is_planned = control.should_save or self._trainer.saved_step == self._trainer.state.global_step
        self._trainer.owed = OwedWork(evaluates=False, saves=is_planned)
        control.should_save = True
        control.should_log |= args.logging_strategy != IntervalStrategy.NO  # the history in the checkpoint is whole

    def _agree(self, device: torch.device) -> int:
        """Return the signal that any process got: all of them write the same checkpoint."""
        if not distributed.is_initialized():
            return self.received
        received = torch.tensor(self.received, device=device)
        distributed.all_reduce(received, distributed.ReduceOp.MAX)
        return int(received)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End, where the checkpoint was asked for."""
        if self._ends_with:
            raise TrainingInterruptedError(self._ends_with, state.global_step)


def shield_worker(prepare: Callable[[int], None] | None, worker: int) -> None:
    """Prepare a data-loader worker that signals to the whole process group do not end.

    It goes with its training process: by the loader's word, or when that process is gone. A batch that it cannot hand
    over, as the system gives no shared memory, ends it, so that the training process does not wait for it for ever.

    Args:
        prepare: What the loader would have called.
        worker: The worker's number.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_with_batch)  # type: ignore[attr-defined]
    if sys.platform == "linux":  # others do not tell who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_loader, daemon=True).start()
    if prepare is not None:
        prepare(worker)


def _end_with_batch(error: Exception, _: object) -> None:
    """End the process where a batch cannot be handed over; multiprocessing would drop it, and go on."""
    print(f"data-loader worker: a batch cannot be handed over: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def _end_with_loader() -> None:
    """End the process at a SIGTERM of its parent: multiprocessing sends it, and waits for ever."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
