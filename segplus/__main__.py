"""The `segplus` command: one subcommand a verb, whose module is imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Sequence

from segplus.commands.endings import EXIT_CODES, end_command
from segplus.commands.options import VERBS
from segplus.errors import InputError, suggest

_SECTIONS = {
    "": "Every key of the recipe may follow: --training.learning_rate 1e-4, or --learning_rate 1e-4 where one section "
    "alone has the key; segplus recipes explain KEY says what it means.",
    "data": "Keys of the recipe's data section may follow: --data.void '[11]'",
    "evaluation": "Keys of the recipe's evaluation section may follow: --evaluation.protocol.flip true",
    "postprocess": "Keys of the recipe's postprocess section may follow: --postprocess.remove_below_px.crack 20",
    "evaluation.protocol": "Keys of the recipe's evaluation.protocol may follow: --evaluation.protocol.flip true",
}
_LIBRARIES = ("TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY", "HF_HUB_VERBOSITY")


class _VersionAction(argparse.Action):
    """Prints the version, which is looked up only where it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from segplus import __version__

        print(f"segplus {__version__}")
        parser.exit()


def build_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser of the whole command, and those of its verbs."""
    parser = argparse.ArgumentParser(
        prog="segplus",
        description="Fine-tune semantic-segmentation models on your own masks.",
        epilog="examples:\n  segplus train quickstart\n  segplus new path/to/folder\n  segplus train recipe.yaml\n\n"
        + textwrap.fill(EXIT_CODES, 80),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_VersionAction, nargs=0, help="print the version")
    _add_verbosity(parser)
    listed = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs = {}
    for name, verb in VERBS.items():
        lines = ["examples:", *(f"  {example}" for example in verb.examples)]
        lines += ["", *(_SECTIONS[section] for section in verb.sections)]
        verbs[name] = listed.add_parser(
            name,
            help=verb.purpose,
            description=f"{verb.purpose[0].upper()}{verb.purpose[1:]}.",
            epilog="\n".join(lines).rstrip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        verb.add_options(verbs[name])
        _add_verbosity(verbs[name])
    return parser, verbs


def _add_verbosity(parser: argparse.ArgumentParser) -> None:
    for short, name, text in (
        ("-q", "--quiet", "no progress, only results and mistakes"),
        ("-v", "--verbose", "also what the libraries say"),
    ):
        # Absent where it is not given, so that a verb does not take back what stands before it.
        parser.add_argument(short, name, action="store_true", default=argparse.SUPPRESS, help=text)


def split_words(words: Sequence[str], verb: argparse.ArgumentParser) -> tuple[list[str], list[str]]:
    """Return the verb's own words, and the `--key value` pairs that stand between them.

    Args:
        words: The command line.
        verb: Says which options are its own.
    """
    flags = {flag for action in verb._actions for flag in action.option_strings}
    own: list[str] = []
    keys: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name = word.partition("=")[0]
        if not word.startswith("-") or name in flags or word[:2] in flags or word == "-":
            own.append(word)
            continue
        keys.append(word)
        if name == word and rest and not rest[0].startswith("--"):
            keys.append(rest.pop(0))
    return own, keys


def refuse_unknown_options(name: str, verb: argparse.ArgumentParser, keys: Sequence[str]) -> None:
    """Refuse what is neither an option of the verb nor a key of the sections that it reads.

    A key of a whole recipe is left to the recipe's reader.

    Raises:
        InputError: If so, with the nearest option or key.
    """
    from segplus.recipe.keys import is_leaf, list_keys, parse_keys

    sections = VERBS[name].sections
    for word in keys:
        key = word.lstrip("-").partition("=")[0]
        is_key = word.startswith("--") and bool(sections) and ("." in key or is_leaf(key) or "" in sections)
        if not word.startswith("-") or is_key:
            continue
        near = [flag[2:] for action in verb._actions for flag in action.option_strings if flag.startswith("--")]
        near += [entry.rsplit(".", 1)[-1] for entry in list_keys(sections) if sections]
        raise InputError(f"command line: '{word}' is no option of segplus {name}", fix=suggest(key, near))
    if sections and "" not in sections:
        parse_keys(keys, sections)


def set_verbosity(options: argparse.Namespace) -> None:
    """Tell this process and those it starts how much to say, before any library is imported."""
    if "quiet" in options:
        os.environ.update(dict.fromkeys(_LIBRARIES, "error"), TQDM_DISABLE="1")
    if "verbose" in options:
        os.environ.update(dict.fromkeys(_LIBRARIES, "info"))
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code, one of `EXIT_CODES`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return end_command(lambda: run_verb(words))


def run_verb(words: list[str]) -> int:
    """Run the verb that a command line names; return the exit code of its work."""
    if any("\0" in word for word in words):
        raise InputError("command line: no word can hold a NUL character", found=ascii(words))
    parser, verbs = build_parser()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    if not words:
        parser.print_help()
        return 0
    name = next((word for word in words if not word.startswith("-")), "")
    verb = verbs.get(name, parser)
    keys: list[str] = []
    try:
        if name and name not in verbs:
            raise InputError(f"command line: '{name}' is no verb of segplus", fix=suggest(name, verbs))
        if name:
            words, keys = split_words(words, verb)
            if keys:
                refuse_unknown_options(name, verb, keys)
    except InputError:
        print(verb.format_usage(), end="", file=sys.stderr)
        raise
    options, left = parser.parse_known_args(words)
    if left:
        verb.error(f"unrecognized arguments: {' '.join(left)}")
    set_verbosity(options)
    command = importlib.import_module(f"segplus.commands.{name}")
    from PIL import Image  # which helps do not need

    with warnings.catch_warnings():
        # Images of a hundred megapixels are what windows are for.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return int(command.run(options, keys))


if __name__ == "__main__":
    sys.exit(main())
