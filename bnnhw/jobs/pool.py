"""Processes that run jobs side by side, of this machine or of a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import (
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
)
from contextlib import contextmanager
from multiprocessing import active_children, get_context

from bnnhw.errors import UserError
from bnnhw.jobs import processes

PATIENCE = 10  # seconds for a scheduler's answer
AGAIN = "the same command goes on where it stopped"


@contextmanager
def workers(jobs: int, scheduler: str | None) -> Iterator[Executor]:
    """Yields an executor: processes of one thread each on this machine, or a Dask cluster's
    workers.
    """
    if scheduler:
        with _dask(scheduler) as executor:
            yield executor
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes are faster than two threads
    executor = ProcessPoolExecutor(jobs, get_context("spawn"), processes.end_at_signals)
    try:
        yield executor
    except BaseException:
        for child in active_children():
            child.terminate()  # they go on from their last epoch another time
        raise
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise UserError(
            "--scheduler: dask.distributed is not installed; pip install 'bnnhw[dask]'"
        ) from None
    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--scheduler {address}: no Dask scheduler answers ({error}); start one with: "
            f"dask scheduler"
        ) from None
    with client:
        yield client.get_executor(pure=False)


def fault(future: Future[None]) -> BaseException | None:
    """Returns the exception that ended a run, or None where the run succeeded."""
    try:
        return future.exception()
    except CancelledError as error:
        return error
