"""Fixtures that every test file may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hub_server
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


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.HubServer]:
    """Give the libraries of this process a Hub on this machine."""
    with hub_server.HubServer() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
