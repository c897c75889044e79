"""Follows jobs to their end: a bar with the time left, a line for each that ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from typing import Generic, TypeVar

Job = TypeVar("Job")
MEMORY = 3600.0  # seconds that the time left is reckoned from
POLL_SECONDS = 1.0


def fault(future: Future[None]) -> BaseException | None:
    """What ended a job, if it was not its end."""
    try:
        return future.exception()
    except CancelledError as error:
        return error


class Follower(ABC, Generic[Job]):
    """Runs jobs and tells how far they are; a subclass says what an end of one means.

    perform : does a job; called in a worker. name, unit : what the bar calls the work, and counts.
    failed : a line for each job that failed.
    """

    def __init__(
        self, jobs: Sequence[Job], perform: Callable[[Job], None], name: str, unit: str
    ) -> None:
        from rich import progress
        from rich.console import Console

        self.jobs, self.failed = [*jobs], list[str]()
        self._perform = perform
        self.bar = progress.Progress(
            "{task.description}", progress.BarColumn(), progress.MofNCompleteColumn(), unit,
            progress.TimeElapsedColumn(), "left", progress.TimeRemainingColumn(),
            console=Console(stderr=True), speed_estimate_period=MEMORY,
        )  # fmt: skip
        self._task = self.bar.add_task(name, total=None)

    @abstractmethod
    def take(self, job: Job, error: BaseException | None, left: int) -> Iterable[Job]:
        """Tell of a job that has ended, while `left` go on; returns what is to be done as well."""

    @abstractmethod
    def progress(self, waiting: int) -> tuple[int, int]:
        """How much is done, and of how much, while so many jobs have not ended."""

    def tell(self, line: str) -> None:
        """Print a line above the bar."""
        self.bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def run(self, executor: Executor, ended: Callable[[], None]) -> None:
        """Do all jobs; `ended` is called whenever some have ended."""
        futures = {executor.submit(self._perform, job): job for job in self.jobs}
        waiting: set[Future[None]] = set(futures)
        try:
            while waiting:
                done, waiting = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
                for future in done:
                    for job in self.take(futures[future], fault(future), len(waiting)):
                        more = executor.submit(self._perform, job)
                        futures[more] = job
                        waiting.add(more)
                if done:
                    ended()
                completed, total = self.progress(len(waiting))
                self.bar.update(self._task, completed=completed, total=total)
        finally:
            for future in futures:
                future.cancel()
