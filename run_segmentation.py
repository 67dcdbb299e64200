"""Train by a recipe, as `segplus train` does: `accelerate launch run_segmentation.py RECIPE.yaml [--key value ...]`."""

from __future__ import annotations

import sys

from segplus.commands.train import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
