"""The machine that a benchmark runs on: what it is, and how much memory a process takes (Linux)."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from segplus.data.parallel import count_cores


def describe_machine(*packages: str) -> list[str]:
    """Return list items: processor, cores and memory; system and threads; versions of the packages."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    models = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"- processor: {models[0] if models else platform.machine()}"
        f"{', AVX512-BF16' if 'avx512_bf16' in text else ''}, {count_cores()} cores, {memory_gib:.0f} GiB",
        f"- {platform.system()}, Python {platform.python_version()}",
        f"- OMP_NUM_THREADS: {os.environ.get('OMP_NUM_THREADS', 'not set')}",
        "- " + ", ".join(f"{name} {version(name)}" for name in packages),
    ]


def read_memory_mib(key: str) -> float:
    """Return VmRSS, what is resident in this process, or VmHWM, its peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def start_peak() -> float:
    """Start to measure the peak of this process's resident memory anew; return what is resident now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return read_memory_mib("VmRSS")


def run_alone(module: str, call: str) -> list[str]:
    """Return the words that a call of a benchmark's function prints in a fresh process."""
    folder = Path(__file__).parent
    path = os.pathsep.join([str(folder), str(folder.parent)])
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}; {module}.{call}"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    return done.stdout.split()
