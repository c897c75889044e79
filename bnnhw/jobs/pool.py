"""Runs of a study side by side: on this machine or a Dask cluster, followed to their end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager
from multiprocessing import active_children, get_context

from bnnhw.errors import UserError
from bnnhw.studies.experiment import Experiment, epochs_done, perform

PATIENCE = 10  # seconds for a scheduler's answer
AGAIN = "the same command goes on where it stopped"
MEMORY = 3600.0  # seconds that the time left is reckoned from


@contextmanager
def workers(jobs: int, scheduler: str | None) -> Iterator[Executor]:
    """Processes of one thread each on this machine, or a Dask cluster's workers."""
    if scheduler:
        with _dask(scheduler) as executor:
            yield executor
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes are faster than two threads
    executor = ProcessPoolExecutor(
        jobs, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_DFL)
    )
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        yield executor
    except BaseException:
        for child in active_children():
            child.terminate()  # they go on from their last epoch another time
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
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
    """What ended a run, if it was not its end."""
    try:
        return future.exception()
    except CancelledError as error:
        return error


class Follower:
    """Follows runs to their end: a bar with the time left, a line for each that ends."""

    def __init__(self, experiments: Sequence[Experiment]) -> None:
        from rich import progress
        from rich.console import Console

        self.left = [e for e in experiments if e.result() is None]
        self.failed: list[str] = []
        self.bar = progress.Progress(
            "{task.description}", progress.BarColumn(), progress.MofNCompleteColumn(), "epochs",
            progress.TimeElapsedColumn(), "left", progress.TimeRemainingColumn(),
            console=Console(stderr=True), speed_estimate_period=MEMORY,
        )  # fmt: skip
        total = sum(e.recipe.epochs or 0 for e in self.left)
        self.task = self.bar.add_task("study", total=total)
        self.tell(f"{len(experiments)} runs, {len(self.left)} of them still to do")

    def tell(self, line: str) -> None:
        self.bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def run(self, executor: Executor, ended: Callable[[], None]) -> None:
        """Run what is left; `ended` is called after each."""
        futures = {executor.submit(perform, experiment): experiment for experiment in self.left}
        waiting: set[Future[None]] = set(futures)
        try:
            while waiting:
                done, waiting = wait(waiting, 1.0, FIRST_COMPLETED)
                for future in done:
                    self._tell_of(futures[future], fault(future), len(waiting))
                    ended()
                epochs = sum(map(epochs_done, self.left))
                self.bar.update(self.task, completed=epochs)
        finally:
            for future in futures:
                future.cancel()

    def _tell_of(self, experiment: Experiment, error: BaseException | None, left: int) -> None:
        name = f"{experiment.method}, seed {experiment.recipe.seed}"
        result = None if error else experiment.result()
        if result is None:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.failed.append(f"{name}: {reason}")
            self.tell(f"{name}: failed, {reason}")
            return
        integer = "refused" if result["integer"] is None else f"{result['integer']} %"
        self.tell(
            f"{name}: validation {result['float']} % float, {integer} integer, "
            f"{result['seconds']} s; {left} left"
        )
