"""Fixtures that every test file may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _keep_subnormal_numbers() -> Iterator[None]:
    """Give the process its subnormal numbers back after a run in it: hypothesis draws them."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder that holds camvid/ and models/, named by SEGPLUS_DATA."""
    folder = os.environ.get("SEGPLUS_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SEGPLUS_DATA does not name the folder with camvid/ and models/")
    return Path(folder)
