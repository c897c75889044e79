"""Fixtures of many files."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from bnnhw import measure
from bnnhw.boards.icebreaker import BOARD
from bnnhw.compiler.plan import Plan, make_plan
from bnnhw.cost import activity
from bnnhw.cost.tables import entries
from bnnhw.flow import design, implement, prove
from bnnhw.network.integer import IntegerNetwork
from bnnhw.nn.kernels import walks
from tests.cost.measuring import Tools, figures
from tests.jobs.executors import Here
from tests.plans import SPECS, network_of


@pytest.fixture
def one_thread():
    """Small kernels are slower with a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def convolutions(one_thread):
    """The compiled convolutions of signs, which need vector instructions; a seeded PyTorch."""
    torch.manual_seed(5)
    assert walks.library() is not None, "g++ must be there for these tests"
    if not walks.library().convolves(16, 16, 1):
        pytest.skip("this processor lacks the vector instructions")


@pytest.fixture
def fakes(monkeypatch, one_thread):
    """Tools that only pretend, for measurements in this process."""
    result = Tools()
    monkeypatch.setattr(design, "write_files", result.write_files)
    monkeypatch.setattr(prove, "prove", result.prove)
    monkeypatch.setattr(implement, "synthesise", result.synthesise)
    monkeypatch.setattr(implement, "place", result.place)
    monkeypatch.setattr(activity, "count_activity", result.count_activity)

    @contextmanager
    def one(jobs, scheduler):
        yield Here()

    monkeypatch.setattr(measure, "workers", one)
    return result


@pytest.fixture
def table():
    """Entries of five methods, of which the last was not trained."""
    rows, known = [], {}
    for arguments in (("baseline", 100, 80.0), ("a", 150, 90.0), ("b", 120, 85.0),
                      ("c", 130, 84.0), ("d", 90, None)):  # fmt: skip
        row, accuracy = figures(*arguments)
        rows.append(row)
        known |= accuracy
    return entries(rows, known)


@pytest.fixture(params=SPECS, scope="module")
def case(request) -> tuple[IntegerNetwork, Plan]:
    """A network of each of SPECS, and its plan."""
    network = network_of(SPECS[request.param])
    return network, make_plan(network, BOARD)
