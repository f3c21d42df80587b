"""Work in several processes, and what Ctrl-C may interrupt."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any

from mertool.errors import UsageError


def check_jobs(jobs: int) -> None:
    """Refuse a number of processes that is none.

    Raises:
        UsageError: Less than one.
    """
    if jobs < 1:
        raise UsageError("At least one process is needed.", f"-j {jobs}", "Try -j 1")


def in_workers(
    function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], jobs: int
) -> Iterator[tuple[int, Any]]:
    """Call a function on each task in `jobs` worker processes (loky).

    Ctrl-C reaches the parent alone, which ends the workers. An exception of the function ends all.

    Args:
        function: A function of a module, so that workers can import it.
        tasks: Its arguments, taken a few at a time.
        jobs: Number of processes.

    Yields:
        (the task's place, the function's result), as they come. Where a worker dies (a crash, no
        memory left), its pool goes with it: those finished until then, then the end.
    """
    from concurrent.futures import FIRST_COMPLETED, wait
    from concurrent.futures.process import BrokenProcessPool

    from joblib.externals.loky import get_reusable_executor

    # Each worker gets its share of the cores; more threads than cores only wait for each other.
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    env = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    env["PYTHONFAULTHANDLER"] = ""  # or loky has crashes dumped to stderr; they are reported
    pool = get_reusable_executor(
        max_workers=jobs, kill_workers=True, reuse=False, env=env,
        initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    finished, waiting, running = False, enumerate(tasks), {}
    try:
        while not finished:
            # No more at once than the pool's queue takes: it chokes on others when it is shut down.
            for place, task in islice(waiting, 2 * jobs - len(running)):
                with suppress(BrokenProcessPool), interrupts_held(), _interrupts_blocked():
                    running[pool.submit(function, *task)] = place
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                place = running.pop(future)
                with suppress(BrokenProcessPool):
                    yield place, future.result()
            finished = not (done or running)
    finally:
        # After Ctrl-C or an error the rest is not worth waiting for.
        pool.shutdown(kill_workers=not finished)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: its last digits, and so the results, would vary with their number.

    More come from more processes.
    """
    torch = sys.modules.get("torch")  # not imported where nobody needs it
    before = torch.get_num_threads() if torch else 0
    if torch:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(before)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait, where it must not be raised in the midst of what is done."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    held: list[Any] = []
    signal.signal(signal.SIGINT, lambda *arguments: held.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            handler(*held[0])


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: what is blocked stays so in them."""
    # Where it starts only later, Python 3.11 unblocks the signal then.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
