"""Files that appear whole: what an interruption leaves, and many writers of one file."""

import os
import threading
from pathlib import Path

import pytest

from common.files import replacing, write_atomically

TEXT = "é🙂 one\ntwo\n"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_there_in_folders_that_were_not(tmp_path):
    path = tmp_path / "new" / "folder" / "file.json"
    write_atomically(path, "old")
    write_atomically(path, TEXT)
    assert path.read_bytes() == TEXT.encode() and names(path.parent) == ["file.json"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, broken):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new and longer")
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_a_writer_that_changes_its_mind_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.npy"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("half")
        assert path.read_text() == "old"
        assert partial.parent == path.parent and partial.name.startswith(".") and partial.suffix != ".npy"
        raise KeyboardInterrupt
    assert path.read_text() == "old" and names(tmp_path) == ["file.npy"]
    with pytest.raises(FileNotFoundError), replacing(path):
        """Nothing is written."""
    assert path.read_text() == "old"


def test_content_is_on_the_disk_before_the_name_is_and_a_cache_need_not_wait(tmp_path, monkeypatch):
    done = []
    for call in (os.fsync, os.replace):

        def noted(*args, call=call):
            done.append(call.__name__)
            return call(*args)

        monkeypatch.setattr(os, call.__name__, noted)
    write_atomically(tmp_path / "file", "x")
    assert done == ["fsync", "replace"]
    write_atomically(tmp_path / "file", "y", durable=False)
    assert done == ["fsync", "replace", "replace"] and (tmp_path / "file").read_text() == "y"


def test_threads_that_write_one_file_at_once_leave_one_of_their_texts(tmp_path):
    path, texts, errors = tmp_path / "file", [letter * 100_000 for letter in "abcd"], []

    def write(text):
        try:
            for _ in range(25):
                write_atomically(path, text, durable=False)
                assert path.read_text() in texts
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and names(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk_is_an_error_with_its_reason(tmp_path):
    with pytest.raises(OSError, match="No space left on device"), replacing(tmp_path / "file") as partial:
        partial.symlink_to("/dev/full")
        partial.write_bytes(b"x")
    assert names(tmp_path) == []
