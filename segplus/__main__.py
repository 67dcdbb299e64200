"""The `segplus` command: one subcommand a verb, whose module is imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence

from PIL import Image

from segplus.commands.endings import EXIT_CODES, end_command

_VERBS = {
    "inspect": "read every pair of a data set once and say what is wrong with it",
    "evaluate": "score a checkpoint on a data set",
    "compare": "score several checkpoints on one data set, image by image",
    "folds": "mean and spread over the runs of all folds",
    "predict": "segment an image, a folder or a pattern",
}
_KEYS = (
    "Keys of the recipe's data and evaluation sections may follow: --data.void '[11]' --evaluation.protocol.flip true"
)


def build_parser(called: str) -> argparse.ArgumentParser:
    """Return the parser of every verb, with the options of the one that is called."""
    parser = argparse.ArgumentParser(
        prog="segplus",
        description="Training is `accelerate launch run_segmentation.py RECIPE.yaml`; the rest is here.",
        epilog=EXIT_CODES,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, text in _VERBS.items():
        epilog = None if name == "folds" else _KEYS
        verb = verbs.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog, allow_abbrev=False
        )
        if name == called:
            command = importlib.import_module(f"segplus.commands.{name}")
            command.add_options(verb)
            verb.set_defaults(run=command.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code, one of `EXIT_CODES`."""
    words = sys.argv[1:] if arguments is None else arguments
    return end_command(lambda: run_verb(words))


def run_verb(words: Sequence[str]) -> int:
    """Run the verb that a command line names; return the exit code of its work."""
    options, rest = build_parser(next((word for word in words if word in _VERBS), "")).parse_known_args(words)
    with warnings.catch_warnings():
        # Images of a hundred megapixels are what windows are for.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return int(options.run(options, rest))


if __name__ == "__main__":
    sys.exit(main())
