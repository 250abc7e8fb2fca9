"""One thread: the models are toys."""

import pytest


@pytest.fixture(autouse=True)
def always(one_thread):
    """For every test of this folder."""
