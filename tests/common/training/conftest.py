"""One thread: models this small are no faster on two, and far slower where other work wants the second core."""

import pytest


@pytest.fixture(autouse=True)
def always(one_thread: None) -> None:
    """For every test of this folder."""
