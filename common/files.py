"""Files that appear whole, written under a temporary name, then renamed; and where the caches of a user lie."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """A name beside `path` to write a file under: it takes the place of `path` at the end of the block.

    A reader, or a crash at any moment, sees the old file or the new one whole. Where the block raises, the old file
    stays and nothing is left behind. The name begins with a dot and is this thread's own, on any machine.

    Args:
        durable: wait until the content is on the disk, some milliseconds. Without it a power cut may leave an empty
            file: for caches of many small files, which are checked when they are read.

    Raises:
        OSError: `path` cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}")
    try:
        yield partial
        if durable:
            with open(partial, "rb") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, text: str, durable: bool = True) -> None:
    """Write `text` in UTF-8 by `replacing`; its errors."""
    with replacing(path, durable) as partial:
        partial.write_text(text, encoding="utf-8")


def user_cache(part: str) -> Path:
    """`$REPRO_CACHE/<part>`, else ~/.cache/repro/<part>. It need not exist."""
    return Path(os.environ.get("REPRO_CACHE") or Path.home() / ".cache" / "repro") / part
