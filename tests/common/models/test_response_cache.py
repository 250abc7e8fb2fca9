"""Cached responses: the same answers, each computed once, across processes, damage and changed requests."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from common.experiments.errors import UserError
from common.models.language_model import Sampling
from common.models.meter import Meter, Metered
from common.models.response_cache import CachedLM, clear, entries
from tests.common.models.test_meter import Parrot

CHAT = [{"role": "user", "content": "é🙂"}]


def cached(folder, **attributes):
    parrot = Parrot()
    for name, value in attributes.items():
        setattr(parrot, name, value)
    return CachedLM(parrot, folder)


def test_an_answer_is_computed_once_and_read_back_whole(tmp_path):
    first = cached(tmp_path)
    answers = first.generate(["a", "b", "a"], Sampling(log_probs=True))
    assert first.lm.asked == ["a", "b"]
    again = cached(tmp_path)
    assert again.generate(["b", "a", "c"], Sampling(log_probs=True))[:2] == [answers[1], answers[0]]
    assert again.lm.asked == ["c"]


def test_scores_are_kept_too(tmp_path):
    first = cached(tmp_path)
    scores = first.score(["a", "a"], ["x", "yz"])
    again = cached(tmp_path)
    assert again.score(["a", "a"], ["x", "yz"]) == scores
    assert again.lm.asked == []


def test_whatever_may_change_the_answer_changes_the_key(tmp_path):
    base = Sampling(max_tokens=5, temperature=0.5)
    others = [
        replace(base, max_tokens=6),
        replace(base, temperature=0.6),
        replace(base, top_p=0.5),
        replace(base, top_k=2),
        replace(base, seed=1),
        replace(base, stop=("x",)),
        replace(base, log_probs=True),
        replace(base, regex="a"),
        replace(base, json_schema={"type": "object"}),
    ]
    lm = cached(tmp_path)
    lm.generate([("a")] * 10, [base, *others])
    assert len(lm.lm.asked) == 10
    lm.score(["a"], ["a"])
    assert len(lm.lm.asked) == 11
    for changed in ({"revision": "r2"}, {"backend": "other"}, {"name": "other"}):
        lm = cached(tmp_path, **changed)
        lm.generate(["a"], base)
        assert lm.lm.asked == ["a"]
    for last in "12":  # revisions that only the end tells apart
        lm = cached(tmp_path, revision=30 * "r" + last)
        lm.generate(["a"], base)
        assert lm.lm.asked == ["a"]
    lm = cached(tmp_path)
    lm.generate([CHAT, "é🙂", CHAT], base)
    assert lm.lm.asked == [CHAT, "é🙂"]


def test_a_model_without_a_revision_is_refused(tmp_path):
    with pytest.raises(UserError, match="give its `revision`"):
        cached(tmp_path, revision="")


def test_a_damaged_file_is_reported_and_not_taken_for_an_answer(tmp_path):
    cached(tmp_path).generate(["a"], Sampling())
    [path] = tmp_path.rglob("*.json")
    path.write_text(path.read_text()[:-5])
    with pytest.raises(UserError, match=f"{path} is damaged"):
        cached(tmp_path).generate(["a"], Sampling())


def test_a_folder_that_cannot_be_written_is_one_line_with_the_way_out(tmp_path):
    lm = cached(tmp_path)

    def read_only(*_):
        raise OSError(30, "Read-only file system")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", read_only)
        with pytest.raises(UserError) as error:
            lm.generate(["a"], Sampling())
    way_out = "set REPRO_CACHE to a folder that can be written"
    assert str(error.value) == f"response cache: cannot write {lm.folder}: Read-only file system; {way_out}"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"response cache: cannot read .*: Not a directory"):
        cached(tmp_path / "file").generate(["a"], Sampling())


def test_what_is_kept_can_be_shown_and_dropped(tmp_path):
    assert entries(tmp_path / "absent") == []
    cached(tmp_path).generate(["a", "b"], Sampling())
    cached(tmp_path, name="x/y", revision="r2").generate(["a"], Sampling())
    shown = {kept.model: kept.responses for kept in entries(tmp_path)}
    assert shown == {"parrot@r1@test": 2, "x_y@r2@test": 1}
    assert sum(kept.bytes for kept in entries(tmp_path)) == sum(p.stat().st_size for p in tmp_path.rglob("*.json"))
    with pytest.raises(UserError, match="did you mean 'parrot@r1@test'"):
        clear(tmp_path, "parot@r1@test")
    assert clear(tmp_path, "parrot@r1@test") == 2
    assert [kept.model for kept in entries(tmp_path)] == ["x_y@r2@test"]
    assert clear(tmp_path) == 1
    assert entries(tmp_path) == []


def test_a_meter_outside_counts_what_the_method_costs_and_one_inside_what_was_computed(tmp_path):
    inside, outside = Meter(), Meter()
    lm = Metered(CachedLM(Metered(Parrot(), inside), tmp_path), outside)
    for _ in range(3):
        lm.generate(["abc"], Sampling(), "answer")
    assert outside.usage["answer"].tokens_in == 3 * inside.usage["answer"].tokens_in
    assert inside.usage["answer"].calls == 1


def test_many_threads_and_processes_share_a_folder(tmp_path):
    prompts = [str(i) for i in range(200)]
    script = (
        "import sys; from pathlib import Path; from tests.common.models.test_response_cache import cached, Sampling;"
        "print(sum(len(c.text) for c in cached(Path(sys.argv[1])).generate([str(i) for i in range(200)], Sampling())))"
    )
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", script, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(3)]
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(cached(tmp_path).generate(prompts, Sampling())))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[c.text for c in result] for result in results] == [prompts] * 4
    assert [process.communicate()[0].strip() for process in processes] == [str(sum(map(len, prompts)))] * 3
    assert entries(tmp_path)[0].responses == 200
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]  # no half-written files
