"""Threads that work over all pairs of a split or read ahead, and the number of processors that do it."""

from __future__ import annotations

import math
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from segplus.progress import Progress

T = TypeVar("T")
_MOST_THREADS = 16


def map_pairs(work: Callable[[int], T], count: int, title: str | None) -> Iterator[T]:
    """Yield work(0), work(1), ... in order, computed by one thread a processor, with few results held at a time."""
    workers = min(_MOST_THREADS, count_cores())
    with (
        ThreadPoolExecutor(workers) as pool,
        Progress[None](total=count, title=title or "", unit="pairs", show=title is not None, leave=False) as bar,
    ):
        waiting: deque[Future[T]] = deque()
        try:
            for index in range(count):
                waiting.append(pool.submit(work, index))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
                    bar.update()
            while waiting:
                yield waiting.popleft().result()
                bar.update()
        finally:
            for future in waiting:
                future.cancel()


def read_ahead(items: Iterator[T], most: int) -> Iterator[T]:
    """Yield the items of an iterator that a thread of its own advances; at most so many wait, while one more is read.

    What the iterator raises is raised where its item was awaited.
    """
    waiting: queue.SimpleQueue[tuple[T] | BaseException | None] = queue.SimpleQueue()
    room, stopped = threading.Semaphore(most), threading.Event()

    def read() -> None:
        try:
            for item in items:
                room.acquire()
                if stopped.is_set():
                    return
                waiting.put((item,))
            waiting.put(None)
        except BaseException as error:
            waiting.put(error)

    threading.Thread(target=read, name="segplus-read-ahead", daemon=True).start()
    try:
        while (entry := waiting.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            room.release()
            yield entry[0]
    finally:
        stopped.set()
        room.release()


def count_cores() -> int:
    """Return the number of processors this process may use: those it is bound to, and those its container pays for."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _read_quota())))


def _read_quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the processors that a container may keep busy, infinity where none is stated (cgroup v2, then v1)."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((root / "cpu" / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
        except OSError:
            return math.inf
    return math.inf if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
