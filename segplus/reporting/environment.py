"""The machine and the package versions that stand beside a result."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

_PACKAGES = ("segplus", "torch", "transformers", "datasets", "accelerate", "albumentations", "huggingface-hub")


def list_versions() -> dict[str, str]:
    """Return Python's and each package's version, by name."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def describe_machine() -> dict[str, str | int]:
    """Return processor, cores, and accelerators where there are any."""
    machine: dict[str, str | int] = {
        "processor": _name_processor(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
        machine["gpus"] = torch.cuda.device_count()
    return machine


def _name_processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
