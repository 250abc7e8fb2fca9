"""The code fingerprint: what counts as the code of a cell, and what does not."""

import pytest

from common.experiments.fingerprint import ROOT, code_files, code_fingerprint, digest

FILES = {
    "projects/__init__.py": "",
    "projects/p/__init__.py": "",
    "projects/p/run.py": "import os\nfrom common.a import f\n\ndef run():\n    from projects.p import late\n",
    "projects/p/late.py": "from .near import y\nx = 1\n",
    "projects/p/near.py": "from ..p import deep\ny = 1\n",
    "projects/p/deep.py": "",
    "projects/p/prompts/.ask.txt.swp": "",
    "projects/p/prompts/__pycache__/ask.pyc": "",
    "projects/p/prompts/ask.txt": "Question:",
    "projects/q/__init__.py": "",
    "projects/q/run.py": "",
    "common/__init__.py": "",
    "common/a.py": '"""Doc."""\nimport common.b as b\n\ndef f():\n    """Doc of f."""\n    return b.g()\n',
    "common/b.py": "def g():\n    return 1  # one\n",
    "common/unused.py": "",
}


@pytest.fixture
def tree(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_import_closure_inside_the_repository(tree):
    files = set(code_files("projects.p.run", tree))
    unreached = {"projects/q/__init__.py", "projects/q/run.py", "common/unused.py"}
    unreached |= {"projects/p/prompts/.ask.txt.swp", "projects/p/prompts/__pycache__/ask.pyc"}
    assert files == set(FILES) - unreached


@pytest.mark.parametrize(
    ("file", "old", "new", "counts"),
    [
        ("common/a.py", '"""Doc."""', '"""Other."""', False),
        ("common/a.py", '"""Doc of f."""', '"""Other."""', False),
        ("common/b.py", "# one", "# another comment", False),
        ("common/b.py", "return 1", "return  (1)", False),
        ("common/b.py", "return 1", "return 2", True),
        ("projects/p/late.py", "x = 1", "x = 2", True),
        ("projects/p/prompts/ask.txt", "Question:", "Question?", True),
        ("common/unused.py", "", "y = 1", False),
        ("projects/q/run.py", "", "y = 1", False),
    ],
)
def test_code_and_prompts_count_comments_docstrings_and_unreached_files_do_not(tree, file, old, new, counts):
    before = code_fingerprint("projects.p.run", tree)
    path = tree / file
    path.write_text(path.read_text().replace(old, new, 1))
    assert (code_fingerprint("projects.p.run", tree) != before) is counts


def test_a_string_that_is_no_docstring_counts(tree):
    before = code_fingerprint("projects.p.run", tree)
    path = tree / "projects/p/late.py"
    path.write_text("x = 'a prompt'\n")
    middle = code_fingerprint("projects.p.run", tree)
    path.write_text("x = 'another'\n")
    assert len({before, middle, code_fingerprint("projects.p.run", tree)}) == 3


def test_digest_ignores_the_order_of_keys_and_sees_values():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5}) != digest({"a": "1"})


def test_a_pinned_process_keeps_the_code_that_it_read(tree, monkeypatch):
    from common.experiments import fingerprint

    before = code_fingerprint("projects.p.run", tree)
    monkeypatch.setattr(fingerprint, "_pinned", True)
    assert code_fingerprint("projects.p.run", tree) == before
    for name in ("projects/p/late.py", "projects/p/prompts/ask.txt"):
        (tree / name).write_text("changed = 1\n")
    assert code_fingerprint("projects.p.run", tree) == before
    monkeypatch.setattr(fingerprint, "_pinned", False)
    assert code_fingerprint("projects.p.run", tree) != before


def test_a_run_function_cannot_reach_the_engine_beyond_its_context():
    """Otherwise a change of a report would make every cell stale."""
    allowed = {"__init__", "context", "errors", "fingerprint", "randomness"}
    for run in ROOT.glob("projects/*/run.py"):
        engine = {name for name in code_files(f"projects.{run.parent.name}.run") if "experiments" in name}
        assert {name.rsplit("/", 1)[1].removesuffix(".py") for name in engine} <= allowed
