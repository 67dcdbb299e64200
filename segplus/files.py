"""Files that are written whole or not at all, under names that stay inside the folder they are meant for."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from segplus.errors import InputError, explain_os_error

try:
    import fcntl
except ImportError:  # Windows, where nobody can remove a file that is open
    fcntl = None  # type: ignore[assignment]

_LEFTOVER = re.compile(r"\.segplus-[0-9a-f]+\.part")
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | (os.O_NOFOLLOW if hasattr(os, "O_NOFOLLOW") else 0)
_PROBE = os.O_RDONLY | (os.O_NOFOLLOW | os.O_NONBLOCK if hasattr(os, "O_NOFOLLOW") else 0)
_LONGEST_NAME_BYTES = 255  # of one part of a path, on every common file system


@contextmanager
def write_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside the target, which takes the target's name when the block ends well.

    Two processes may write the same file at once: each has a temporary file of its own, and the last one stands. What a
    killed process leaves is known by `is_leftover`. A link in the target's place is replaced, not followed.

    Args:
        path: The file; folders on the way are made.
    Raises:
        InputError: If the operating system refuses: a file in the way, no permission, a full disk.
    """
    target = Path(path)
    with explain_refusals(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = name_temporary(target.parent)
        descriptor = os.open(temporary, _NEW_FILE, 0o666)
    try:
        _hold(descriptor)
        with explain_refusals(target, temporary):
            yield temporary
            temporary.replace(target)
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text as UTF-8, whole or not at all; what UTF-8 cannot hold (a file name in no encoding) is escaped."""
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def write_whole_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside the target, which takes the target's place when the block ends well.

    Args:
        path: The folder; what stands in its place is removed.
    Raises:
        InputError: If the operating system refuses.
    """
    target = Path(path)
    with explain_refusals(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = name_temporary(target.parent)
        temporary.mkdir()
        descriptor = os.open(temporary, _PROBE)
    try:
        _hold(descriptor)
        with explain_refusals(target, temporary):
            yield temporary
            _take_place(temporary, target)
    finally:
        os.close(descriptor)
        shutil.rmtree(temporary, ignore_errors=True)
        sweep_leftovers(target.parent)


def _take_place(temporary: Path, target: Path) -> None:
    """Rename a folder; what stands in its place, or comes there meanwhile, is moved away."""
    while True:
        with suppress(FileNotFoundError):
            target.rename(name_temporary(target.parent))
        try:
            temporary.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return


@contextmanager
def explain_refusals(target: Path, temporary: Path | None = None) -> Iterator[None]:
    """Turn what the operating system refuses about one path into one message that names it."""
    try:
        yield
    except OSError as error:
        is_ours = error.filename is None or temporary is None or str(error.filename).startswith(str(temporary))
        if error.errno is None or not is_ours:
            raise
        # Of a folder on the way the message names that folder, of a temporary file the file that it becomes.
        named = error.filename if temporary is None and error.filename is not None else target
        raise explain_os_error(error, str(named)) from error


def prepare_folder(folder: str | Path) -> Path:
    """Make a folder, prove that files can be written to it, and remove what a killed process left there.

    Raises:
        InputError: If it cannot be made or written to.
    """
    made = Path(folder)
    if os.path.islink(made) and not os.path.exists(made):
        raise InputError(f"{made}: a link to nothing", found=os.readlink(made), fix="remove it, or name another folder")
    with explain_refusals(made):
        made.mkdir(parents=True, exist_ok=True)
        sweep_leftovers(made)
        probe = name_temporary(made)
    with explain_refusals(made, probe):
        os.close(os.open(probe, _NEW_FILE, 0o666))
        probe.unlink()
    return made


def is_leftover(name: str) -> bool:
    """Return whether a name is that of a temporary file or folder, which only a killed process leaves."""
    return _LEFTOVER.fullmatch(name) is not None


def sweep_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders that no living process holds."""
    for path in list(folder.glob(".segplus-*.part")):
        if is_leftover(path.name) and not _is_held(path):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):  # it is tolerated
                    path.unlink()


def place_outputs(
    folder: str | Path, names: Sequence[str], suffix: str, inputs: Iterable[str | Path] = ()
) -> list[Path]:
    """Return the path of each sample's file inside a folder; nothing is written yet.

    What is absolute in a name, and `..`, is left out: `/photos/1` becomes `FOLDER/photos/1.png`.

    Args:
        folder: The folder that the files go to.
        names: The samples' names, as their data set gives them.
        suffix: What is added to each name, such as ".png".
        inputs: Files that must not be written over; looked at only where something stands in a file's place.
    Raises:
        InputError: If two samples would become one file, a name cannot be a file's, or a link, a folder or an input
            file stands in the place of one.
    """
    root, placed = Path(folder), dict[Path, str]()
    for name in names:
        target = root.joinpath(*_list_parts(name, suffix))
        if target in placed:
            raise InputError(
                f"{placed[target]} and {name} would both become {target}", fix="give every sample a name of its own"
            )
        placed[target] = name
    for parent in {target.parent for target in placed}:
        for step in (parent, *parent.parents):
            if step == root:
                break
            if step in placed or os.path.islink(step):
                what = "the file of another sample" if step in placed else "a link, which is not followed"
                raise InputError(f"{step}: no folder for predictions", found=what, fix="name another output folder")
    _refuse_standing([target for target in placed if os.path.lexists(target)], inputs)
    return list(placed)


def _list_parts(name: str, suffix: str) -> list[str]:
    """Return a name's parts below a folder, the last one with the suffix."""
    path = PurePath(name)
    parts = [part for part in path.parts if part not in (path.anchor, "..")]
    if not parts or "\0" in name:
        raise InputError("a sample has a name that no file can have", found=repr(name), fix="give it another name")
    parts[-1] += suffix
    try:
        longest = max(len(os.fsencode(part)) for part in parts)
    except UnicodeEncodeError:
        raise InputError("a sample has a name that no file can have", found=ascii(name)) from None
    if longest > _LONGEST_NAME_BYTES:
        raise InputError(
            f"a sample's name is too long for a file: {name[:60]}...",
            found=f"{longest} bytes with {suffix}",
            allowed=f"{_LONGEST_NAME_BYTES} bytes between two slashes",
        )
    return parts


def _refuse_standing(standing: Sequence[Path], inputs: Iterable[str | Path]) -> None:
    """Refuse to write over links, folders and input files."""
    known = {_identify(path) for path in inputs if os.path.exists(path)} if standing else set()
    for target in standing:
        if os.path.islink(target) or target.is_dir():
            what = "a link, which is not followed" if target.is_symlink() else "a folder"
            raise InputError(f"{target}: cannot be written", found=what, fix="name another output folder")
        if _identify(target) in known:
            raise InputError(f"{target}: would be written over an input file", fix="name another output folder")


def _identify(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def name_temporary(folder: Path) -> Path:
    """Return a new path in a folder that `sweep_leftovers` knows."""
    return folder / f".segplus-{secrets.token_hex(8)}.part"


def _hold(descriptor: int) -> None:
    """Show other processes that a temporary file is being written; the hold ends with the process."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks: what is left there is tolerated
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_held(path: Path) -> bool:
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, _PROBE)
    except OSError:
        return True  # a link, or another's
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
