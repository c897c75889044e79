"""Fixtures of many files."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def one_thread():
    """Small kernels are slower with a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
