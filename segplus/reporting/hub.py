"""Pushing a finished run to the Hub: model, processor, card, metrics and logs in one commit."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError, RepositoryNotFoundError  # type: ignore[attr-defined]
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

from segplus.errors import InputError

IGNORED_FILES = (
    "checkpoint-*",
    "**/checkpoint-*/**",
    "optimizer*",
    "training_args.bin",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*",
    "pytorch_model_fsdp*",
    "global_step*",
    "*.part",
    ".*",
    "**/__pycache__/**",
)


def push_folder(
    folder: str | Path,
    repo_id: str,
    private: bool,
    commit_message: str,
    token: str | None = None,
    ignore: Sequence[str] = IGNORED_FILES,
) -> str:
    """Push a run's folder to the Hub as one commit, and return the repository's address.

    One commit, so that nobody ever loads half a model. The repository is made where it does not exist.

    Args:
        folder: The run's folder: weights, config, image processor, README.md, metrics.json, logs.
        repo_id: "user/name", or "name" for the token's own user.
        private: Whether nobody else may see the repository.
        commit_message: First line of the commit.
        token: Access token; None takes the one of `hf auth login` or HF_TOKEN.
        ignore: Glob patterns of files that stay here; checkpoints and optimizer states by default.
    Raises:
        InputError: If the folder holds no model, a private push would become public, or the Hub refuses.
    """
    source = Path(folder)
    paths = list_pushed_files(source, ignore)
    try:
        api = HfApi(token=token)
        repository = api.create_repo(repo_id, private=private, exist_ok=True)
        _refuse_public(api, repository.repo_id, private)
        api.create_commit(
            repository.repo_id,
            [CommitOperationAdd(path_in_repo=_hide_host(path), path_or_fileobj=source / path) for path in paths],
            commit_message=commit_message,
        )
    except InputError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise _explain(error, source, repo_id, private, ignore) from error
    return str(repository)


def list_pushed_files(folder: Path, ignore: Sequence[str] = IGNORED_FILES) -> list[str]:
    """Return the paths, relative to the folder and sorted, that a push uploads.

    Args:
        folder: The run's folder.
        ignore: Glob patterns of files that stay here.
    Raises:
        InputError: If there is no config.json, without which nothing can be loaded from the Hub.
    """
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    kept = list(filter_repo_objects(found, ignore_patterns=list(ignore)))
    if "config.json" not in kept:
        raise InputError(
            f"{folder}: no model to push",
            found=", ".join(kept[:5]) or "no files",
            allowed="a folder with config.json and the weights",
            fix="name the run's folder, not the one above it",
        )
    return kept


def _hide_host(path: str) -> str:
    """TensorBoard writes the machine's name into its files' names."""
    return path.replace(socket.gethostname(), "host")


def _refuse_public(api: HfApi, repo_id: str, private: bool) -> None:
    """Stop before the upload where the repository was made earlier, for everybody to see."""
    if private and not api.model_info(repo_id).private:
        raise InputError(
            f"{repo_id}: the repository exists and is public, but the push shall be private",
            fix="make the repository private in its settings, name another one, or push without private",
        )


def _explain(error: Exception, folder: Path, repo_id: str, private: bool, ignore: Sequence[str]) -> InputError:
    """Turn what went wrong into what to do; the weights are on disk whatever happened."""
    command = ["hf", "upload", repo_id, str(folder), ".", *(["--private"] if private else [])]
    for pattern in ignore:
        command += ["--exclude", pattern]
    found = " ".join(str(error).split())[:500] or type(error).__name__
    login = "" if not _is_about_login(error) else " Log in first: `hf auth login`, with a token that may write."
    return InputError(
        f"{repo_id}: the push to the Hub failed; nothing that was trained is lost, it lies in {folder}",
        found=found,
        fix=f"{login} Repeat the push alone: {shlex.join(command)}".strip(),
    )


def _is_about_login(error: Exception) -> bool:
    if isinstance(error, LocalTokenNotFoundError | RepositoryNotFoundError):
        return True
    response = error.__dict__.get("response")
    return response is not None and response.status_code in (401, 403)
