"""The fifty papers (`projects/catalogue.yaml`), and which of them run: read from the files that are there.

A paper is implemented when `projects/<slug>/run.py` exists; its tables and scales are the file names in
`configs/table/<slug>/`. Light on purpose: `repro list` answers in under half a second with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from common.experiments.errors import UserError
from common.experiments.fingerprint import ROOT

CATALOGUE = ROOT / "projects" / "catalogue.yaml"
SCALES = ("tiny", "small", "paper")


@dataclass(frozen=True)
class Paper:
    """One paper as the catalogue describes it.

    Attributes:
        slug: name of its package under `projects/`.
        name: the short name used in the field.
        title: as published.
        venue: venue and year, or the year of the preprint.
        group: letter A to F.
        claim: the abstract's own headline, in one line.
        substrate: what its offline (tiny) table stands on, in one line.
    """

    slug: str
    name: str
    title: str
    venue: str
    group: str
    group_title: str
    claim: str
    substrate: str


def load(path: Path = CATALOGUE) -> dict[str, Paper]:
    """Slug -> paper, in the order of the file.

    Raises:
        UserError: the file is missing, is not YAML, or a paper in it lacks a field or has one too many.
    """
    try:
        groups = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["groups"]
        return {
            slug: Paper(slug=slug, group=letter, group_title=group["title"], **_strings(slug, entry))
            for letter, group in groups.items()
            for slug, entry in group["papers"].items()
        }
    except OSError as error:
        raise UserError(f"cannot read the catalogue {path}: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the catalogue {path} cannot be understood: {reason}") from error


def _strings(slug: str, entry: Mapping[str, object]) -> dict[str, str]:
    """The entry's fields as text; a misspelt, missing or non-text field is named."""
    expected = {field.name for field in fields(Paper)} - {"slug", "group", "group_title"}
    wrong = sorted(expected ^ entry.keys()) + sorted(key for key, value in entry.items() if not isinstance(value, str))
    if wrong:
        raise TypeError(f"paper {slug}: field {wrong[0]} is missing, unknown or not text")
    return {key: str(value) for key, value in entry.items()}


def implemented(root: Path = ROOT) -> list[str]:
    """Slugs of the packages that have a run function, whether or not the catalogue knows them, sorted."""
    return sorted(path.parent.name for path in root.glob("projects/*/run.py"))


def tables(slug: str, root: Path = ROOT) -> dict[str, list[str]]:
    """Table -> its scales (from tiny to paper); both empty where `configs/table/<slug>/` has no such files."""
    names = {path.stem for path in root.joinpath("configs", "table", slug).glob("*.yaml")}
    scale_files = {f"{name}_{scale}" for name in names for scale in SCALES}
    return {
        name: [scale for scale in SCALES if f"{name}_{scale}" in names]
        for name in sorted(names - scale_files)  # `main_tiny` is a scale of `main`, or a table of its own without one
    }
