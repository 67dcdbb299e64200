"""Text of people and data sets inside Markdown: shown as it is, whatever it holds."""

from __future__ import annotations

import json
import re
import shlex

# An underscore inside a word means nothing in Markdown.
_MARKS = re.compile(r"[\\`*{}\[\]<>#|!~&$]|(?<![^\W_])_|_(?![^\W_])")


def escape_text(text: object) -> str:
    """Return text on one line in which no character means anything to Markdown or HTML, in a table's cell either."""
    return _MARKS.sub(r"\\\g<0>", " ".join(str(text).split()))


def escape_paragraphs(text: str) -> str:
    """Return text of several paragraphs, each escaped by itself."""
    paragraphs = (escape_text(paragraph) for paragraph in re.split(r"\n\s*\n", text.strip()))
    return "\n\n".join(paragraphs)


def quote_code(text: object) -> str:
    """Return text as a code span, which holds backticks too."""
    line = " ".join(str(text).split())
    fence = choose_fence(line, 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def choose_fence(text: str, least: int = 3) -> str:
    """Return more backticks in a row than the text has anywhere."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(least, longest + 1)


def quote_python(text: str) -> str:
    """Return text as a string of Python source, on one line."""
    return json.dumps(text, ensure_ascii=False)


def quote_shell(text: str) -> str:
    """Return text as one word of a shell command, on one line."""
    return shlex.quote(" ".join(text.split()))
