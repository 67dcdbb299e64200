"""Pushing a finished run to the Hub: model, processor, card, metrics and logs in one commit."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError, RepositoryNotFoundError  # type: ignore[attr-defined]
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    filter_repo_objects,
    get_session,
    hf_raise_for_status,
)

from segplus.errors import InputError

IGNORED_FILES = (
    "checkpoint-*",
    "**/checkpoint-*/**",
    "optimizer*",
    "training_args.bin",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*",
    "*.part",
    ".*",
    "**/__pycache__/**",
)

_FAILURES = (HTTPError, OSError, ValueError, RuntimeError)


def push_folder(
    folder: str | Path,
    repo_id: str,
    private: bool,
    commit_message: str,
) -> str:
    """Push a run's folder to the Hub as one commit, and return the repository's address.

    One commit, so that nobody ever loads half a model. The repository is made where it does not exist.

    Args:
        folder: The run's folder: weights, config, image processor, README.md, metrics.json, logs.
        repo_id: "user/name", or "name" for the token's own user.
        private: Whether nobody else may see the repository.
        commit_message: First line of the commit.
    Raises:
        InputError: If the folder holds no model, a private push would become public, or the Hub refuses.
    """
    source = Path(folder)
    paths = list_pushed_files(source)
    try:
        api = HfApi()
        repository = api.create_repo(repo_id, private=private, exist_ok=True)
        _refuse_public(api, repository.repo_id, private)
        api.create_commit(
            repository.repo_id,
            [CommitOperationAdd(path_in_repo=_hide_host(path), path_or_fileobj=source / path) for path in paths],
            commit_message=commit_message,
        )
    except InputError:
        raise
    except _FAILURES as error:
        raise _explain(error, source, repo_id, private) from error
    return str(repository)


def prepare_repository(repo_id: str, private: bool) -> None:
    """Make the repository that a run will be pushed to, or see that it may be written: before training, not after.

    Args:
        repo_id: "user/name", or "name" for the token's own user.
        private: Whether nobody else may see the repository.
    Raises:
        InputError: If there is no token or no way to the Hub, the name is none, the repository may not be written, or
            a private push would become public.
    """
    try:
        api = HfApi()
        repository = api.create_repo(repo_id, private=private, exist_ok=True)
        # A repository that exists may be somebody else's; only some versions of HfApi.auth_check ask about writing.
        address = f"{api.endpoint}/api/models/{repository.repo_id}/auth-check/write"
        hf_raise_for_status(get_session().get(address, headers=build_hf_headers()))
        _refuse_public(api, repository.repo_id, private)
    except InputError:
        raise
    except _FAILURES as error:
        login = "log in with `hf auth login`, with a token that may write; or " if _is_about_login(error) else ""
        raise InputError(
            f"training.push_to_hub: {repo_id} cannot be written, so nothing was trained",
            found=_shorten(error),
            fix=f"{login}name another training.hub_model_id, or leave push_to_hub out and push later",
        ) from error


def list_pushed_files(folder: Path) -> list[str]:
    """Return the paths, relative to the folder and sorted, that a push uploads.

    Args:
        folder: The run's folder; checkpoints and the optimizer's state stay here.
    Raises:
        InputError: If there is no config.json, without which nothing can be loaded from the Hub.
    """
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    kept = list(filter_repo_objects(found, ignore_patterns=list(IGNORED_FILES)))
    if "config.json" not in kept:
        raise InputError(
            f"{folder}: no model to push",
            found=", ".join(kept[:5]) or "no files",
            allowed="a folder with config.json and the weights",
            fix="name the run's folder, not the one above it",
        )
    return kept


def _hide_host(path: str) -> str:
    """TensorBoard writes the machine's name into its files' names; every other path stays as it is."""
    folder, slash, name = path.rpartition("/")
    if not name.startswith("events.out.tfevents."):
        return path
    return f"{folder}{slash}{name.replace(f'.{socket.gethostname()}.', '.host.')}"


def _refuse_public(api: HfApi, repo_id: str, private: bool) -> None:
    """Stop before the upload where the repository was made earlier, for everybody to see."""
    if private and not api.model_info(repo_id).private:
        raise InputError(
            f"{repo_id}: the repository exists and is public, but the push shall be private",
            fix="make the repository private in its settings, name another one, or push without private",
        )


def _explain(error: Exception, folder: Path, repo_id: str, private: bool) -> InputError:
    """Turn what went wrong into what to do; the weights are on disk whatever happened."""
    command = ["hf", "upload", repo_id, str(folder), ".", *(["--private"] if private else [])]
    for pattern in IGNORED_FILES:
        command += ["--exclude", pattern]
    login = "" if not _is_about_login(error) else " Log in first: `hf auth login`, with a token that may write."
    return InputError(
        f"{repo_id}: the push to the Hub failed; nothing that was trained is lost, it lies in {folder}",
        found=_shorten(error),
        fix=f"{login} Repeat the push alone: {shlex.join(command)}".strip(),
    )


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


def _is_about_login(error: Exception) -> bool:
    if isinstance(error, LocalTokenNotFoundError | RepositoryNotFoundError):
        return True
    response = error.__dict__.get("response")
    return response is not None and response.status_code in (401, 403)
