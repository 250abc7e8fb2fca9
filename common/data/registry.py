"""What a data set is here, where its files are found, and how they are read: checked, offline, one line on failure.

One module per set (`common/data/squad.py`) holds `DATASET` and `load(data, ...)` and imports nothing but this module,
so that the code fingerprint of a cell contains only the loaders it uses. `common/data/catalogue.py` lists all sets.

A file is looked for in two places, both laid out as `<set>/<file>`: the mirror folder given (`REPRO_DATA`), then the
user's cache (`$REPRO_CACHE/data`, by default `~/.cache/repro/data`). Sets that exist at paper scale only are parquet
files, also found in the Hugging Face cache. Nothing is ever downloaded here.
"""

import gzip
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from common.experiments.errors import UserError, nearest
from common.files import user_cache

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class DataFile:
    """One file of the mirror.

    Attributes:
        path: relative to the folder of the set, `/` between parts.
        sha256: 64 hex digits over the file as stored (compressed, if it ends in `.gz`).
        rows: what its loader returns, in rows; None for a single object that is not a list of rows.
        split: the published split its rows come from, in the set's own words.
        url: direct public address of the same bytes, None where there is none.
    """

    path: str
    sha256: str
    rows: int | None = None
    split: str = ""
    url: str | None = None


@dataclass(frozen=True)
class Hub:
    """Parquet files `<config>/<split>-00000-of-0000N.parquet` of a Hugging Face data set `repo` at `revision`."""

    repo: str
    revision: str
    config: str


@dataclass(frozen=True)
class Dataset:
    """A data set: where it is from, under which terms, what is at hand.

    Attributes:
        name: folder name in the mirror and the word used in `needs: {data: [...]}`.
        title: for people.
        source: publication and repository it comes from.
        revision: commit or version of the copy at hand (first eight digits where the record has no more).
        licence: of the data, with that of the text inside where it differs.
        non_commercial: True when any file is under a non-commercial licence.
        files: what the mirror carries; empty for sets that exist at paper scale only.
        splits: published split -> rows of the *full* set (not of the files here).
        papers: slugs of the papers that use it, from abstracts and the mirror's notes.
        canonical: how a user gets the full set.
        bytes_full: approximate size of that full download in bytes, for the planner only.
        hub: where `hub_files` finds sets that exist at paper scale only; every key of `splits` is there.
    """

    name: str
    title: str
    source: str
    revision: str
    licence: str
    non_commercial: bool
    files: tuple[DataFile, ...]
    splits: Mapping[str, int]
    papers: tuple[str, ...]
    canonical: str
    bytes_full: int
    hub: Hub | None = None

    def file(self, path: str) -> DataFile:
        """The file of that path; UserError naming the nearest one when there is none."""
        return pick(f"data set '{self.name}': file", path, {file.path: file for file in self.files})


def pick(what: str, word: str, choices: Mapping[str, Choice]) -> Choice:
    """`choices[word]`, or a UserError in one line with the nearest choice."""
    if word not in choices:
        raise UserError(f"unknown {what} '{word}'{nearest(word, choices)}")
    return choices[word]


def cache_folder() -> Path:
    """The user's own copy of data sets: `$REPRO_CACHE/data`, else `~/.cache/repro/data`. It need not exist."""
    return user_cache("data")


def folders(dataset: Dataset, data: Path | None) -> list[Path]:
    """Where the set may lie, in order. UserError when the mirror that was asked for is no readable folder."""
    if data is None:
        return [cache_folder() / dataset.name]
    try:
        os.listdir(data)
    except OSError as error:
        raise UserError(f"data folder {data} (REPRO_DATA) cannot be read: {reason(error)}") from None
    return [data / dataset.name, cache_folder() / dataset.name]


def find(dataset: Dataset, file: str, data: Path | None = None) -> Path:
    """Path of a file of the set, its checksum verified.

    Args:
        file: `DataFile.path`.
        data: mirror folder (`Context.data`, from `REPRO_DATA`), None when there is none.

    Raises:
        UserError: unknown file, unreadable folder, file missing, unreadable or not the registered bytes; one line each.
            A wrong file in the mirror is an error even when the cache has the right one.
    """
    path, _ = _verified(dataset, file, data)
    return path


def missing(dataset: Dataset, data: Path | None = None) -> list[str]:
    """Registered files (for sets on the Hub: splits) not on this machine; no checksums, for plan and doctor."""
    places = folders(dataset, data)
    absent = [file.path for file in dataset.files if not any(_exists(place / file.path) for place in places)]
    if dataset.hub:
        absent += [split for split in dataset.splits if not _hub_files(dataset, dataset.hub, split, data)]
    return absent


def require(dataset: Dataset, data: Path | None = None) -> None:
    """Return when every file of the set is at hand and right, else raise the UserError that its loader would raise."""
    for file in dataset.files:
        find(dataset, file.path, data)
    if dataset.hub:
        for split in dataset.splits:
            hub_files(dataset, split, data)


def hub_files(dataset: Dataset, split: str, data: Path | None = None) -> list[Path]:
    """Parquet files of one split, in order: from the mirror or cache (`folders`), else the Hugging Face cache.

    They carry no registered checksum: the revision pins them. `hf download` and `datasets` both fill that cache.

    Raises:
        UserError: the split is nowhere, some of its N files are missing, a folder is unreadable; one line.
        ValueError: the data set has no parquet files.
    """
    if dataset.hub is None:
        raise ValueError(f"data set '{dataset.name}' has no parquet files")
    files = _hub_files(dataset, dataset.hub, split, data)
    if not files:
        pattern = f"{dataset.hub.config}/{split}-*.parquet"
        raise UserError(
            f"data set '{dataset.name}': {pattern} not found or incomplete in REPRO_DATA, {cache_folder()} and the "
            f"Hugging Face cache; {how_to_get(dataset)}"
        )
    return files


def _hub_files(dataset: Dataset, hub: Hub, split: str, data: Path | None) -> list[Path]:
    """All N files of the split in the first place that has them all; empty when none has."""
    for place in folders(dataset, data) + _hub_snapshots(hub, split):
        folder = place / hub.config
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"data set '{dataset.name}': {folder} cannot be read: {reason(error)}") from None
        parts = [re.fullmatch(rf"{re.escape(split)}-(\d+)-of-(\d+)\.parquet", name) for name in names]
        found = [part for part in parts if part]
        if found and len(found) == int(found[0][2]):
            return [folder / part[0] for part in found]
    return []


def _hub_snapshots(hub: Hub, split: str) -> list[Path]:
    """The snapshot folder in the Hugging Face cache, if there is one; never the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            hub.repo,
            repo_type="dataset",
            revision=hub.revision,
            allow_patterns=[f"{hub.config}/{split}-*"],
            local_files_only=True,
        )
    except LocalEntryNotFoundError:
        return []
    return [Path(folder)]


def read_text(dataset: Dataset, file: str, data: Path | None = None) -> str:
    """Verified content of a UTF-8 file, unpacked when it ends in `.gz`. Line ends are kept. Errors as `find`."""
    _, content = _verified(dataset, file, data)
    return (gzip.decompress(content) if file.endswith(".gz") else content).decode("utf-8")


def read_json(dataset: Dataset, file: str, data: Path | None = None) -> Any:
    """Verified content of a JSON file. Errors as `find`."""
    return json.loads(read_text(dataset, file, data))


def read_jsonl(dataset: Dataset, file: str, data: Path | None = None) -> list[Any]:
    """Verified content of a file with one JSON object per line, in file order. Errors as `find`."""
    lines = read_text(dataset, file, data).split("\n")  # not splitlines(): strings may hold U+2028
    return [json.loads(line) for line in lines if line]


def how_to_get(dataset: Dataset) -> str:
    """The way to a missing set, as the end of one line; it names a non-commercial licence."""
    licence = f" (non-commercial: {dataset.licence})" if dataset.non_commercial else ""
    if not dataset.files:
        return f"get it by: {dataset.canonical}{licence}"
    return f"set REPRO_DATA to a mirror that has it, or take the files from their sources: {dataset.source}{licence}"


def reason(error: OSError) -> str:
    """The system's words for an error, without path and number: `Permission denied`."""
    return error.strerror or type(error).__name__


def _exists(path: Path) -> bool:
    """False as well where the system will not say (no permission): `find` then gives the reason."""
    return os.path.exists(path)


def _verified(dataset: Dataset, file: str, data: Path | None) -> tuple[Path, bytes]:
    """Path and bytes of the first copy found. Always hashed: 15 MB, the largest file, take about 30 ms."""
    wanted = dataset.file(file)
    places = folders(dataset, data)
    for place in places:
        path = place / wanted.path
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"data set '{dataset.name}': {path} cannot be read: {reason(error)}") from None
        found = hashlib.sha256(content).hexdigest()
        if found != wanted.sha256:
            raise UserError(
                f"data set '{dataset.name}': {path} is not the registered file "
                f"(sha256 {found[:12]}…, expected {wanted.sha256[:12]}…); replace it: {how_to_get(dataset)}"
            )
        return path, content
    looked = " or ".join(str(place) for place in places)
    unset = "" if data else " (REPRO_DATA is not set)"
    raise UserError(f"data set '{dataset.name}': no {wanted.path} in {looked}{unset}; {how_to_get(dataset)}")
