"""What the Auto classes raise for a person's mistake as one message, and their own chatter silenced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from segplus.errors import InputError

# What the Auto classes raise for files and values that are wrong.
_FAILURES = (OSError, ValueError, LookupError, TypeError, RuntimeError, ImportError, AttributeError, ArithmeticError)
_FAILURES += (AssertionError, EOFError, SafetensorError, UnpicklingError, StrictDataclassError)  # type: ignore[assignment]


@contextmanager
def explain_config(key: str) -> Iterator[None]:
    """Turn what a config refuses into one message that begins with the recipe's key."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise InputError(f"{key}: {error}") from error
    except OSError as error:
        raise InputError(
            f"{key}: {str(error).splitlines()[0]}", fix="check the name, the connection, or use a local folder"
        ) from error


@contextmanager
def explain_failures(
    key: str, source: str, fix: str = "check the name, the connection, or use a local folder"
) -> Iterator[None]:
    """Turn what the Auto classes raise for a person's mistake into one message.

    Args:
        key: What the message begins with.
        source: The checkpoint, or the type of a model.
        fix: What to do about it.
    """
    try:
        yield
    except InputError:
        raise
    except _FAILURES as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        if key == "model.checkpoint":
            fix += ", or begin with random weights: model.config without a checkpoint (segplus models)"
        raise InputError(f"{key}: cannot load {source}", found=lines[0][:400], fix=fix) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the library's progress bars and its list of new weights, which LoadedModel.describe tells in one line."""
    verbosity, had_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()
