"""Follows the runs of a study to their end."""

from __future__ import annotations

from collections.abc import Sequence

from bnnhw.jobs.follower import Follower
from bnnhw.studies.experiment import Experiment, epochs_done, perform


class Runs(Follower[Experiment]):
    """The runs of a study that are still to do. The bar counts epochs."""

    def __init__(self, experiments: Sequence[Experiment]) -> None:
        left = [e for e in experiments if e.result() is None]
        super().__init__(left, perform, "study", "epochs")
        self.tell(f"{len(experiments)} runs, {len(left)} of them still to do")

    def progress(self, waiting: int) -> tuple[int, int]:
        return sum(map(epochs_done, self.jobs)), sum(e.recipe.epochs or 0 for e in self.jobs)

    def take(self, job: Experiment, error: BaseException | None, left: int) -> tuple[()]:
        name = f"{job.method}, seed {job.recipe.seed}"
        result = None if error else job.result()
        if result is None:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.failed.append(f"{name}: {reason}")
            self.tell(f"{name}: failed, {reason}")
            return ()
        integer = "refused" if result["integer"] is None else f"{result['integer']} %"
        self.tell(
            f"{name}: validation {result['float']} % float, {integer} integer, "
            f"{result['seconds']} s; {left} left"
        )
        return ()
