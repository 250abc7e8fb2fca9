"""A request to stop, from whoever gave this process its machine: a scheduler that preempts, a time limit that nears.

A training loop that can go on from a checkpoint hears it between two steps (`fit` does):

    @heeding()
    def train(...):
        for step in range(start, steps):
            ...
            if requested():
                save(...)
                raise Preempted(saved=True)

Where no loop listens, the request ends the run at once, as Ctrl-C would. Who runs the function turns `Preempted` into a
requeued job; the next attempt finds the checkpoint.
"""

from collections.abc import Iterator
from contextlib import contextmanager

CHECKPOINT = "checkpoint.safetensors"  # file name, in a folder of its own

_requested = False
_loops = 0


class Preempted(BaseException):
    """The run stopped on request. Like KeyboardInterrupt no `Exception`: nothing on the way mistakes it for a failure.

    Attributes:
        saved: this attempt wrote what the next goes on from; False: the next repeats what this one did.
    """

    def __init__(self, saved: bool) -> None:
        super().__init__("stopped on request")
        self.saved = saved


def request() -> None:
    """Ask this process to stop; called by a signal handler, in the main thread.

    Raises:
        Preempted: no loop listens.
    """
    global _requested
    _requested = True
    if not _loops:
        raise Preempted(saved=False)


def requested() -> bool:
    """Whether to stop now; a loop under `heeding` asks after each step."""
    return _requested


@contextmanager
def heeding() -> Iterator[None]:
    """While the block (or the decorated function) runs, a request waits until it asks `requested()`.

    Raises:
        Preempted: the request came after the block had asked for the last time.
    """
    global _loops
    _loops += 1
    try:
        yield
    finally:
        _loops -= 1
    if _requested and not _loops:
        raise Preempted(saved=False)
