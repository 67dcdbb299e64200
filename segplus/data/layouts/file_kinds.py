"""Files of one folder by their endings: what lies beside each other case by case, and which of it are masks."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segplus.data.decoding.stored import MAX_PIXELS, open_with_pillow, report_damage
from segplus.data.layouts.source import OpenChoiceError, name_some
from segplus.data.layouts.words import is_image_word, rank_word
from segplus.errors import InputError

_LOOKED_AT = 3  # files of an ending
_SOME, _FEW = 24, 64  # different values of a file, from which on it may be a photograph, up to which a mask
_NOISY, _CALM, _FLAT = 0.6, 0.5, 0.9  # shares of equal neighbours: below in photographs, above in masks, in any mask


class Kinds(NamedTuple):
    """What lies beside each other, case by case: ending, with the file's suffix -> key of the case -> path.

    images and masks hold the endings of which every file looked at is one; unclear all others. parts: key -> further
    files of a case, called as a mask and numbered: a_mask_1.png beside a_mask.png. alone: files that are called as the
    images are, and have nothing beside them.
    """

    files: dict[str, dict[str, str]]
    images: list[str]
    masks: list[str]
    unclear: list[str]
    parts: dict[str, list[str]]
    alone: list[str]


def find_kinds(files: Sequence[str], root: Path) -> Kinds | None:
    """Return the kinds of files of which every case has one each; None where a file is of no case, or none is a mask.

    Args:
        files: Paths below the folder.
        root: The folder.
    """
    cases = _find_cases(files)
    if cases is None:
        return None
    endings = next(iter(cases.values())).keys()
    named = {ending: {key: case[ending] for key, case in cases.items()} for ending in endings}
    owners = {os.path.splitext(path)[0]: key for ending in endings for key, path in named[ending].items()}
    parts: dict[str, list[str]] = defaultdict(list)
    alone: dict[str, list[str]] = defaultdict(list)
    for path in sorted(set(files) - {path for case in cases.values() for path in case.values()}):
        key = owners.get(re.sub(r"[_-]\d+$", "", os.path.splitext(path)[0]))
        ending = max((one for one in endings if path.endswith(one)), key=len, default="")
        if key is not None:
            parts[key].append(path)
        elif ending and not any(path[: mark.start()] in cases for mark in re.finditer(r"[_\-. ]", path)):
            alone[ending].append(path)
        else:
            return None
    looks = {ending: {_look_at(root / path) for path in _choose_few([*named[ending].values()])} for ending in endings}
    listed = sorted(endings, key=lambda ending: (-rank_word(_last_word(ending)), ending))
    images = [ending for ending in listed if looks[ending] == {"image"}]
    masks = [ending for ending in listed if looks[ending] == {"mask"}]
    unclear = [ending for ending in listed if ending not in images and ending not in masks]
    if not masks or (alone and [*alone] != images):
        return None
    return Kinds(named, images, masks, unclear, dict(parts), [path for some in alone.values() for path in some])


def _find_cases(files: Sequence[str]) -> dict[str, dict[str, str]] | None:
    """Return key -> ending -> path: the endings that explain most files, two at least of two cases at least."""
    beside: dict[str, dict[str, str]] = defaultdict(dict)
    for path in files:
        folder, name = os.path.split(path)
        stem = os.path.splitext(name)[0]
        for cut in [len(stem), *(place for place, mark in enumerate(stem) if place and mark in "_-. ")]:
            beside[os.path.join(folder, name[:cut])][name[cut:]] = path
    counted = Counter(frozenset(endings) for endings in beside.values() if len(endings) > 1)
    found = [endings for endings, count in counted.items() if count > 1]
    if not found:
        return None
    best = max(found, key=lambda one: (len(one) * counted[one], -len("".join(one)), sorted(one)))
    return {key: {one: case[one] for one in best} for key, case in beside.items() if best <= case.keys()}


def choose_kinds(kinds: Kinds, root: Path) -> tuple[list[str], list[str]]:
    """Return (images, masks) where one kind looks like photographs and one like masks.

    Raises:
        OpenChoiceError: If several do, with the lines that choose.
        InputError: If images have further masks, numbered.
    """
    images = kinds.images or [ending for ending in kinds.unclear if is_image_word(name_kinds([ending]).strip("_-. "))]
    masks = [*kinds.masks, *(ending for ending in kinds.unclear if ending not in images)]
    parts = [path for some in kinds.parts.values() for path in some]
    if parts:
        raise InputError(
            f"{root}: {len(parts)} images have further masks, "
            + ("and others have none" if kinds.alone else "of other values than 0 and one more"),
            found=name_some(parts),
            fix="join the masks of an image in one file, or set data.image_pattern and data.mask_pattern",
        )
    if len(kinds.images) == len(masks) == 1:
        return sorted([*kinds.files[images[0]].values(), *kinds.alone]), sorted(kinds.files[masks[0]].values())
    endings = {"image": images or masks, "mask": masks}
    lines = {
        f"{what}_pattern": {ending: write_pattern(ending, kinds.files) for ending in some}
        for what, some in endings.items()
    }
    listed = [f"data.{key}: " + " or ".join(f"'{line}'" for line in some.values()) for key, some in lines.items()]
    asked = [f"which {key[:-8]}s are meant, {name_kinds([*some])}?" for key, some in lines.items() if len(some) > 1]
    raise OpenChoiceError(
        f"{root}: images and masks lie in one folder, and nothing tells them apart",
        found=name_kinds([*images, *masks]),
        fix=f"set {' and '.join(listed)}",
        keys={key: next(iter(some.values())) for key, some in lines.items()} if images else {},
        question=f"{' '.join(asked)} Set {' and '.join(listed)}",
    )


def write_pattern(ending: str, endings: Collection[str]) -> str:
    """Return the regular expression of the files that end so, and in none of the longer endings."""
    longer = sorted(other[: -len(ending)] for other in endings if other != ending and other.endswith(ending))
    longer = [one for one in longer if not any(one != other and one.endswith(other) for other in longer)]
    return "^(.*)" + "".join(f"(?<!{re.escape(other)})" for other in longer) + re.escape(ending) + "$"


def count_values(paths: Sequence[str]) -> int:
    """Return the largest number of different values in a few of these files, 0 if one cannot be read."""
    counts = [0]
    for path in paths:
        try:
            counts.append(len(np.unique(_read_packed(Path(path)))))
        except InputError:  # it is reported when the file is read
            return 0
    return max(counts)


def _look_at(path: Path) -> str:
    """Return whether a file looks like an "image" or a "mask", "" where neither is plain."""
    with suppress(InputError):  # it is reported when the file is read
        packed = _read_packed(path)
        different, same = len(np.unique(packed)), float((packed[:, 1:] == packed[:, :-1]).mean())
        if different > _SOME and same < _NOISY:
            return "image"
        return "mask" if same > (_CALM if different <= _FEW else _FLAT) else ""
    return ""


def _read_packed(path: Path) -> np.ndarray:
    """Return the values of a file's pixels, or numbers that stand for its colours, shape (H, W)."""
    with report_damage(str(path)), open_with_pillow(str(path), MAX_PIXELS) as image:
        pixels = np.asarray(image).astype(np.float64)
    return pixels if pixels.ndim == 2 else pixels @ (256.0 ** np.arange(pixels.shape[-1]))


def _choose_few(paths: Sequence[str]) -> Sequence[str]:
    return paths if len(paths) <= _LOOKED_AT else [paths[0], paths[len(paths) // 2], paths[-1]]


def _last_word(ending: str) -> str:
    return re.split(r"[_\-. ]", os.path.splitext("x" + ending)[0])[-1] if len(ending) else ""


def name_kinds(endings: Sequence[str]) -> str:
    """Return endings for people, without the suffix where something is left: _mask, .png."""
    return ", ".join(os.path.splitext(f"x{ending}")[0][1:] or ending for ending in endings)
