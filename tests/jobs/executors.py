"""Stand-ins for the workers of a study or a measurement."""

from __future__ import annotations

from concurrent.futures import Executor, Future


class Here(Executor):
    """Runs everything at once in this process."""

    def submit(self, work, /, *arguments, **settings):
        future = Future()
        try:
            future.set_result(work(*arguments, **settings))
        except Exception as error:
            future.set_exception(error)
        return future
