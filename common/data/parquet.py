"""Rows of a paper-scale data set from its parquet files, one by one. `pyarrow` is imported on use."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.data.registry import Dataset, how_to_get, hub_files, reason
from common.experiments.errors import UserError


def stream_rows(dataset: Dataset, split: str, columns: list[str], data: Path | None) -> Iterator[dict[str, Any]]:
    """Rows of one split in file order, with the given columns only.

    Args:
        data: mirror folder, None when there is none.

    Raises:
        UserError: files missing (`registry.hub_files`), unreadable or not parquet; pyarrow not installed; one line.
    """
    try:
        import pyarrow  # type: ignore[import-untyped, unused-ignore]
        import pyarrow.parquet  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise UserError(f"data set '{dataset.name}' needs pyarrow: pip install pyarrow") from None
    for path in hub_files(dataset, split, data):
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=64, columns=columns):  # NQ rows are about 300 KB each
                    yield from batch.to_pylist()
        except pyarrow.ArrowInvalid:
            raise UserError(f"data set '{dataset.name}': {path} is broken; {how_to_get(dataset)}") from None
        except OSError as error:
            raise UserError(f"data set '{dataset.name}': {path} cannot be read: {reason(error)}") from None
