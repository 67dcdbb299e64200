"""OneFormer's task, which is always the semantic one here, without the tokenizer of a Hub repository."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

# "the task is semantic" in the byte-pair vocabulary of CLIP, which OneFormer was trained with; 0 fills up.
_START, _END = 49406, 49407
_WORDS = {"the": 518, "task": 10549, "is": 533, "seman": 29119, "##tic": 1550}  # "semantic" is two pieces


def list_task_ids(length: int) -> list[int]:
    """Return the token ids of "the task is semantic", filled up with 0.

    Args:
        length: `task_seq_len` of the model's config.
    """
    ids = [_START, *_WORDS.values(), _END][:length]
    return ids + [0] * (length - len(ids))


def make_task_inputs(config: PreTrainedConfig, pixel_values: Tensor) -> Tensor:
    """Return OneFormer's task_inputs for a batch of images, shape (N, task_seq_len)."""
    ids = torch.tensor(list_task_ids(config.task_seq_len), device=pixel_values.device)
    return ids.expand(pixel_values.shape[0], -1)  # not len(): an exporter would take the batch for fixed


def save_task_tokenizer(folder: str | Path, length: int) -> None:
    """Write a tokenizer that knows the one sentence beside a model, where transformers' pipeline looks for it.

    The library's own fills up with the id of the end (49407), while OneFormer was trained with 0.

    Args:
        folder: The model's folder.
        length: `task_seq_len` of the model's config.
    """
    vocabulary = {"!": 0, "<|startoftext|>": _START, "<|endoftext|>": _END, **_WORDS}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", _START), ("<|endoftext|>", _END)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="!", eos_token="<|endoftext|>", model_max_length=length
    ).save_pretrained(folder)
