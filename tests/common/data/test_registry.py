"""Finding files: order of the places, checksums, and one line for every way it can fail; the list of all sets."""

import ast
import gzip
import hashlib
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import common.data
from common.data import locomo, squad
from common.data.catalogue import DATASETS, all_datasets, dataset
from common.data.registry import (
    DataFile,
    Dataset,
    find,
    missing,
    pick,
    read_json,
    read_jsonl,
    read_text,
    require,
)
from common.experiments.errors import UserError

ROOT = Path(common.data.__path__[0]).parents[1]
ROWS = '{"text": "a\u2028b"}\n{"text": "ü"}\n'.encode()
PACKED = gzip.compress(b'{"n": 1}', mtime=0)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


TOY = Dataset(
    name="toy",
    title="Toy",
    source="nobody/toy",
    revision="1",
    licence="MIT",
    non_commercial=False,
    files=(DataFile("rows.jsonl", sha(ROWS), rows=2), DataFile("deep/one.json.gz", sha(PACKED))),
    splits={"all": 2},
    papers=("dsi_pp",),
    canonical="GitHub nobody/toy",
    bytes_full=100,
)


def put(folder: Path, content: bytes = ROWS) -> Path:
    (folder / "toy" / "deep").mkdir(parents=True)
    (folder / "toy" / "rows.jsonl").write_bytes(content)
    (folder / "toy" / "deep" / "one.json.gz").write_bytes(PACKED)
    return folder


def line_of(call) -> str:
    """The message of the UserError that the call raises; it must be one line."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_mirror_comes_before_the_cache(tmp_path):
    put(tmp_path / "mirror"), put(tmp_path / "cache" / "data")
    assert find(TOY, "rows.jsonl", tmp_path / "mirror") == tmp_path / "mirror" / "toy" / "rows.jsonl"
    assert find(TOY, "rows.jsonl", None) == tmp_path / "cache" / "data" / "toy" / "rows.jsonl"


def test_a_file_the_mirror_lacks_comes_from_the_cache(tmp_path):
    put(tmp_path / "cache" / "data")
    (tmp_path / "mirror").mkdir()
    assert find(TOY, "rows.jsonl", tmp_path / "mirror") == tmp_path / "cache" / "data" / "toy" / "rows.jsonl"


def test_cache_is_in_the_home_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("REPRO_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    put(tmp_path / "home" / ".cache" / "repro" / "data")
    assert missing(TOY, None) == []


def test_readers_keep_line_separators_inside_strings_and_unpack(tmp_path):
    data = put(tmp_path)
    assert read_jsonl(TOY, "rows.jsonl", data) == [{"text": "a\u2028b"}, {"text": "ü"}]
    assert read_text(TOY, "rows.jsonl", data).encode() == ROWS
    assert read_json(TOY, "deep/one.json.gz", data) == {"n": 1}


def test_missing_names_files_and_require_raises_for_the_first(tmp_path):
    data = put(tmp_path / "mirror")
    require(TOY, data)
    (data / "toy" / "rows.jsonl").unlink()
    assert missing(TOY, data) == ["rows.jsonl"]
    assert "no rows.jsonl in" in line_of(lambda: require(TOY, data))


def test_missing_file_says_how_to_get_it(tmp_path):
    message = line_of(lambda: find(TOY, "rows.jsonl", None))
    assert (
        "REPRO_DATA is not set" in message
        and "from their sources: nobody/toy" in message
        and "non-commercial" not in message
    )
    (tmp_path / "empty").mkdir()
    message = line_of(lambda: find(TOY, "rows.jsonl", tmp_path / "empty"))
    assert str(tmp_path / "empty" / "toy") in message and "not set" not in message


def test_non_commercial_licence_is_named_when_the_set_is_missing():
    message = line_of(lambda: find(replace(TOY, non_commercial=True, licence="CC BY-NC 4.0"), "rows.jsonl", None))
    assert "non-commercial: CC BY-NC 4.0" in message
    assert "CC BY-NC 4.0" in line_of(lambda: locomo.load(None))


def test_unknown_file_names_the_nearest():
    assert "did you mean 'rows.jsonl'?" in line_of(lambda: find(TOY, "row.jsonl", None))


@pytest.mark.parametrize("content", [ROWS[:-1], ROWS + b"\n", b"", ROWS.replace(b"a", b"e")])
def test_wrong_bytes_are_refused(tmp_path, content):
    data = put(tmp_path, content)
    message = line_of(lambda: read_jsonl(TOY, "rows.jsonl", data))
    assert "not the registered file" in message and sha(ROWS)[:12] in message and sha(content)[:12] in message


def test_a_right_cache_does_not_hide_a_wrong_mirror(tmp_path):
    data = put(tmp_path / "mirror", b"{}")
    put(tmp_path / "cache" / "data")
    assert "not the registered file" in line_of(lambda: find(TOY, "rows.jsonl", data))


def test_data_folder_that_is_absent_or_a_file(tmp_path):
    assert "No such file or directory" in line_of(lambda: find(TOY, "rows.jsonl", tmp_path / "nowhere"))
    (tmp_path / "file").write_text("")
    assert "Not a directory" in line_of(lambda: missing(TOY, tmp_path / "file"))


def test_set_folder_that_is_a_file_and_file_that_is_a_folder(tmp_path):
    (tmp_path / "toy").write_text("")
    assert "cannot be read: Not a directory" in line_of(lambda: find(TOY, "rows.jsonl", tmp_path))
    (tmp_path / "toy").unlink()
    (tmp_path / "toy" / "rows.jsonl").mkdir(parents=True)
    assert "cannot be read: Is a directory" in line_of(lambda: find(TOY, "rows.jsonl", tmp_path))


def test_no_permission_is_one_line(tmp_path, monkeypatch):
    data = put(tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:  # chmod does not stop root
        patch.setattr(Path, "read_bytes", refuse)
        assert "cannot be read: Permission denied" in line_of(lambda: find(TOY, "rows.jsonl", data))
    monkeypatch.setattr(os, "listdir", refuse)
    assert "(REPRO_DATA) cannot be read: Permission denied" in line_of(lambda: find(TOY, "rows.jsonl", data))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_no_permission_on_disk_is_one_line(tmp_path):
    data = put(tmp_path / "mirror")
    (data / "toy" / "rows.jsonl").chmod(0)
    assert "Permission denied" in line_of(lambda: find(TOY, "rows.jsonl", data))
    data.chmod(0)
    message = line_of(lambda: find(TOY, "rows.jsonl", data))
    data.chmod(0o700)
    assert "Permission denied" in message


def test_a_loader_reads_a_tiny_mirror(tmp_path, monkeypatch):
    content = (
        b'{"data": [{"title": "T", "paragraphs": [{"context": "Bees hum.", "qas": '
        b'[{"id": "1", "question": "What do bees do?", "answers": [{"text": "hum", "answer_start": 5}]}]}]}]}'
    )
    (tmp_path / "squad").mkdir()
    (tmp_path / "squad" / "xquad.en.json").write_bytes(content)
    assert "not the registered file" in line_of(lambda: squad.load(tmp_path))
    monkeypatch.setattr(squad, "DATASET", replace(squad.DATASET, files=(DataFile("xquad.en.json", sha(content)),)))
    question = squad.Question("1", "What do bees do?", (squad.Answer("hum", 5),))
    assert squad.load(tmp_path) == [squad.Paragraph("T", "Bees hum.", (question,))]


def test_pick_names_the_nearest():
    assert pick("split", "dev", {"dev": 1}) == 1
    assert line_of(lambda: pick("split", "dve", {"dev": 1})) == "unknown split 'dve'; did you mean 'dev'?"


# --- all sets -----------------------------------------------------------------------------------------------------


def modules() -> dict[str, object]:
    names = [module.name for module in pkgutil.iter_modules(common.data.__path__)]
    loaded = {name: importlib.import_module(f"common.data.{name}") for name in names}
    return {name: module for name, module in loaded.items() if hasattr(module, "DATASET")}


def test_catalogue_lists_every_module_with_a_data_set():
    assert sorted(module.DATASET.name for module in modules().values()) == sorted(DATASETS)
    assert all(name == entry.name for name, entry in all_datasets().items())
    assert len(DATASETS) == 21


def test_unknown_set_names_the_nearest():
    assert dataset("squad") is squad.DATASET
    assert "did you mean 'squad'?" in line_of(lambda: dataset("sqaud"))


@pytest.mark.parametrize("entry", DATASETS.values(), ids=list(DATASETS))
def test_every_set_says_what_it_is(entry):
    for value in (entry.title, entry.source, entry.revision, entry.licence, entry.canonical):
        assert value.strip() and "\n" not in value
    assert entry.files or entry.hub
    assert entry.splits and all(rows > 0 for rows in entry.splits.values()) and entry.bytes_full > 0
    assert all(re.fullmatch(r"[0-9a-f]{64}", file.sha256) for file in entry.files)
    assert len({file.path for file in entry.files}) == len({file.sha256 for file in entry.files}) == len(entry.files)
    assert entry.papers == tuple(sorted(set(entry.papers))) != ()


def test_non_commercial_sets_are_the_known_ones():
    assert {name for name, entry in DATASETS.items() if entry.non_commercial} == {"locomo", "ms_marco"}
    assert not [name for name, entry in DATASETS.items() if "NC" in entry.licence and not entry.non_commercial]


def test_papers_are_slugs_of_the_catalogue():
    groups = yaml.safe_load((ROOT / "projects" / "catalogue.yaml").read_text())["groups"]
    slugs = {slug for group in groups.values() for slug in group["papers"]}
    assert {paper for entry in DATASETS.values() for paper in entry.papers} <= slugs


@pytest.mark.parametrize("name", modules())
def test_a_loader_reaches_no_other_loader(name):
    """The fingerprint of a cell is its import closure: another set's loader must not be in it."""
    tree = ast.parse((ROOT / "common" / "data" / f"{name}.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    ours = {module for module in imported if module.startswith("common")}
    assert ours <= {"common.data.registry", "common.data.rows", "common.data.parquet"}


def test_the_list_of_sets_imports_nothing_heavy():
    heavy = "('torch', 'numpy', 'pyarrow', 'huggingface_hub', 'pandas')"
    code = f"import sys; import common.data.catalogue; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
