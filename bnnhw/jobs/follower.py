"""Follows jobs to their end: a bar with the time left, and a line for each job that ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from typing import Generic, TypeVar

Job = TypeVar("Job")
MEMORY = 3600.0  # seconds that the time left is reckoned from
POLL_SECONDS = 1.0


def fault(future: Future[None]) -> BaseException | None:
    """Returns the exception that ended a job, or None where the job succeeded."""
    try:
        return future.exception()
    except CancelledError as error:
        return error


class Follower(ABC, Generic[Job]):
    """Runs jobs and shows how far they are. A subclass says what the end of a job means.

    perform : does a job; a worker calls it.
    name, unit : what the bar calls the work, and what it counts.
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
        """Handle a job that has ended while `left` jobs go on. Returns the jobs to do as well."""

    @abstractmethod
    def progress(self, waiting: int) -> tuple[int, int]:
        """Returns how much is done and how much there is, while `waiting` jobs have not ended."""

    def tell(self, line: str) -> None:
        """Print a line above the bar."""
        self.bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def run(self, executor: Executor, ended: Callable[[], None]) -> None:
        """Do all jobs. Calls `ended` whenever some of them have ended."""
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
