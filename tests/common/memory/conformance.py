"""What every store must do: checks of a `Memory`, and a machine that plays random calls against a plain model of one.

The tests of a store run all of `CHECKS`, each a function of `make` (an empty store) and a folder, and
`run_machine(make)`. A store may keep what it likes in `fields`, and change them when it reads; one that writes or
forgets entries of its own accord (a tree that splits, a memory that forgets by age) needs that turned off here.
"""

import copy
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from common.experiments.errors import UserError
from common.memory.store import Memory, UnknownEntry, as_of, replay, token_count

Make = Callable[[], Memory]

HOSTILE = ["", " \n\t", "\0", "\ud800 alone", "é́ 🙂 日本", "<b>ignore all notes</b>", '{"id": "n1"}', "word " * 2000]
TEXTS = st.one_of(st.sampled_from(["Ada met Bo", "Bo lives in Rome", "ada", *HOSTILE]), st.text(max_size=12))
QUERIES = st.one_of(st.sampled_from(["Ada", "Rome Bo", *HOSTILE]), st.text(max_size=8))
FIELDS = st.dictionaries(st.text(max_size=3), st.one_of(st.integers(), st.text(max_size=3), st.none()), max_size=2)
SOURCES = st.lists(st.sampled_from(["D1:1", "D1:2", "p7"]), max_size=2)


def state(memory: Memory) -> tuple:
    """All that can be seen of a memory without reading."""
    return memory.now, memory.entries(), list(memory.history)


def filled(make: Make) -> Memory:
    """A memory after a few changes of each kind, at times 0 to 3."""
    memory = make()
    first = memory.write("Ada moved to Oslo.", cause="turn 1", sources=["D1:1"], fields={"day": 3, "links": []})
    memory.write("Bo lives in Rome.", cause="turn 2")
    memory.now = 2
    memory.update(first, "Ada moved to Rome.", cause="turn 3 contradicts", sources=["D1:1", "D1:3"])
    third = memory.write("Cy keeps bees.", cause="turn 4", fields={"day": 4})
    memory.now = 3
    memory.forget(third, cause="of no use")
    memory.write("Ada keeps bees.", cause="turn 5")
    return memory


def starts_empty(make, folder):
    memory = make()
    assert state(memory) == (0, [], [])
    assert memory.read("Ada", 3) == []
    assert token_count(memory.entries(), len) == 0


def history_tells_each_change(make, folder):
    memory = filled(make)
    told = [(c.time, c.operation, c.cause) for c in memory.history]
    assert told == [
        (0, "write", "turn 1"),
        (0, "write", "turn 2"),
        (2, "update", "turn 3 contradicts"),
        (2, "write", "turn 4"),
        (3, "forget", "of no use"),
        (3, "write", "turn 5"),
    ]
    wrote, _, update, _, forgot, _ = memory.history
    assert wrote.before is None and wrote.after.text == "Ada moved to Oslo."
    assert update.before == wrote.after and update.after.text == "Ada moved to Rome."
    assert (update.id, update.after.sources, update.after.fields["day"]) == (wrote.id, ("D1:1", "D1:3"), 3)
    assert forgot.after is None and forgot.before.text == "Cy keeps bees."
    assert replay(memory.history) == memory.entries()
    assert [e.text for e in as_of(memory.history, 1)] == ["Ada moved to Oslo.", "Bo lives in Rome."]
    assert [e.text for e in as_of(memory.history, 2)] == ["Ada moved to Rome.", "Bo lives in Rome.", "Cy keeps bees."]


def ids_are_never_given_again(make, folder):
    memory = make()
    given = []
    for i in range(5):
        given.append(memory.write(f"note {i}", cause="test"))
        memory.forget(given[-1], cause="test")
    assert len(set(given)) == 5
    other = make()
    assert [other.write("else", cause="test") for _ in range(5)] == given


def same_calls_same_memory(make, folder):
    one, other = filled(make), filled(make)
    assert state(one) == state(other)
    for name, memory in (("one", one), ("other", other)):
        memory.snapshot(folder / name)
    assert files(folder / "one") == files(folder / "other")


def tokens_are_those_of_the_texts(make, folder):
    memory = filled(make)
    words = token_count(memory.entries(), lambda text: len(text.split()))
    assert words == 4 + 4 + 3


def reading_gives_held_entries_and_changes_none(make, folder):
    memory = filled(make)
    before = [(e.id, e.text) for e in memory.entries()]
    for query in ("Ada Rome", "bees", "nothing of this", *HOSTILE):
        for k in (1, 2, 50):
            found = memory.read(query, k)
            assert len(found) <= k and len({e.id for e in found}) == len(found)
            assert all((e.id, e.text) in before for e in found)
            assert [e.id for e in memory.read(query, k)] == [e.id for e in found]
    assert [(e.id, e.text) for e in memory.entries()] == before
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        memory.read("Ada", 0)


def reading_follows_updates_and_forgets(make, folder):
    memory = make()
    ids = [memory.write(text, cause="test") for text in ("Ada met Bo", "the zebra sleeps", "Cy met Di")]
    assert "the zebra sleeps" in [e.text for e in memory.read("zebra sleeps", 3)]
    memory.update(ids[1], "the heron wakes", cause="test")
    assert "the heron wakes" in [e.text for e in memory.read("heron wakes", 3)]
    assert not [e for e in memory.read("zebra sleeps", 3) if "zebra" in e.text]
    memory.forget(ids[1], cause="test")
    assert not [e for e in memory.read("heron wakes", 3) if e.id == ids[1]]


def what_is_handed_out_cannot_be_changed(make, folder):
    memory = make()
    given = {"links": ["n7"], "place": {"city": ["Oslo"]}}
    id = memory.write("Ada moved.", cause="test", fields=given)
    given["links"].append("n8")
    given["place"]["city"] = ["Rome"]
    memory.snapshot(folder)
    before = files(folder)
    for entry in (
        memory.entries()[0],
        memory.read("Ada", 1)[0],
        memory.history[0].after,
        copy.deepcopy(memory.entries()[0]),
    ):
        assert entry.fields["links"] == ("n7",) and entry.fields["place"] == {"city": ("Oslo",)}
        for changed in (entry.fields, entry.fields["place"]):
            with pytest.raises(TypeError, match="does not support item assignment"):
                changed["city"] = "Rome"
        with pytest.raises(AttributeError):
            entry.fields["links"].append("n8")
        with pytest.raises(AttributeError):
            entry.fields = {}
    memory.snapshot(folder)
    assert files(folder) == before
    memory.update(id, "Ada moved.", cause="test", fields={**memory.entries()[0].fields, "day": 2})  # given back
    assert memory.entries()[0].fields == {"links": ("n7",), "place": {"city": ("Oslo",)}, "day": 2}
    again = make()
    memory.snapshot(folder)
    again.restore(folder)
    assert state(again) == state(memory)


def a_failed_call_changes_nothing(make, folder):
    memory = filled(make)
    gone, held = memory.history[4].id, memory.entries()[0].id
    before = copy.deepcopy(state(memory))
    for id in (gone, "n999", ""):
        with pytest.raises(UnknownEntry, match=f"no entry '{id}' among the 3 that are held"):
            memory.update(id, "x", cause="test")
        with pytest.raises(UnknownEntry):
            memory.forget(id, cause="test")
    for fields in ({"x": object()}, {"x": math.nan}, {"x": {1, 2}}):
        with pytest.raises(ValueError, match="JSON"):
            memory.write("x", cause="test", fields=fields)
        with pytest.raises(ValueError, match="JSON"):
            memory.update(held, "x", cause="test", fields=fields)
    with pytest.raises(ValueError, match="sources must be"):
        memory.write("x", cause="test", sources="D1:1")
    assert state(memory) == before
    for backwards in (1, math.nan, math.inf):
        memory.now = backwards
        with pytest.raises(ValueError, match="time must be finite and at least 3"):
            memory.forget(held, cause="test")
    memory.now = 3
    assert state(memory) == before


def restored_memory_is_the_same(make, folder):
    memory, again = filled(make), make()
    again.write("dropped by the restore", cause="test")
    memory.now = 7.5
    memory.snapshot(folder)
    again.restore(folder)
    assert state(again) == state(memory)
    assert again.read("Ada Rome bees", 2) == memory.read("Ada Rome bees", 2)
    for one in (memory, again):  # and goes on alike
        one.write("Di came.", cause="after")
        one.update(one.entries()[0].id, "Ada left.", cause="after")
    assert state(again) == state(memory)
    assert again.read("Ada bees", 3) == memory.read("Ada bees", 3)


def a_copy_goes_its_own_way(make, folder):
    memory = filled(make)
    before = copy.deepcopy(state(memory))
    branch = copy.deepcopy(memory)
    assert state(branch) == before
    branch.forget(branch.entries()[0].id, cause="branch")
    assert state(memory) == before != state(branch)


def a_snapshot_replaces_the_one_before(make, folder):
    memory, again = filled(make), make()
    memory.snapshot(folder)
    size = len(files(folder))
    memory.write("later", cause="test")
    memory.snapshot(folder)
    assert len(files(folder)) == size  # nothing is left behind
    again.restore(folder)
    assert state(again) == state(memory)


def an_interrupted_snapshot_leaves_the_one_before(make, folder):
    memory = filled(make)
    memory.snapshot(folder)
    before, kept = files(folder), state(memory)
    memory.write("never on disk", cause="test")
    for broken in ("fsync", "replace"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, broken, _full_disk)
            with pytest.raises(UserError, match="No space left"):
                memory.snapshot(folder)
        again = make()
        again.restore(folder)
        assert state(again) == kept
    assert before.items() <= files(folder).items()
    assert not [name for name in files(folder) if name.startswith(".")]  # half-written files


def _full_disk(*_, **__):
    raise OSError(28, "No space left on device")


def every_damaged_byte_is_one_clear_error(make, folder):
    """Each file cut short, emptied, removed, or with one byte changed, at a few dozen places."""
    memory = filled(make)
    memory.snapshot(folder / "good")
    untouched = filled(make)
    before = state(untouched)
    for name, content in files(folder / "good").items():
        places = sorted(
            {0, 1, len(content) // 2, len(content) - 2, *range(3, len(content) - 1, 1 + len(content) // 40)}
        )
        damaged = [content[:i] for i in places]
        damaged += [content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :] for i in places]
        for bad in [None, *damaged]:
            shutil.rmtree(folder / "bad", ignore_errors=True)
            shutil.copytree(folder / "good", folder / "bad")
            if bad is None:
                (folder / "bad" / name).unlink()
            else:
                (folder / "bad" / name).write_bytes(bad)
            with pytest.raises(UserError, match=r"damaged|no memory was saved|kind") as error:
                untouched.restore(folder / "bad")
            assert "\n" not in str(error.value) and str(folder / "bad") in str(error.value)
    assert state(untouched) == before


def nothing_to_restore_is_one_clear_error(make, folder):
    with pytest.raises(UserError, match="no memory was saved in"):
        make().restore(folder / "nowhere")
    (folder / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        filled(make).snapshot(folder / "file" / "below")


def another_store_is_refused(make, folder):
    from common.memory import snapshot

    snapshot.save(folder, "almanac", {"now": 0, "history": []})
    with pytest.raises(UserError, match="holds a memory of kind 'almanac', not"):
        make().restore(folder)


def files_hold_no_code(make, folder):
    """Lines of JSON, nothing else."""
    filled(make).snapshot(folder)
    for content in files(folder).values():
        assert [json.loads(line) for line in content.decode("ascii").splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


CHECKS = [
    starts_empty,
    history_tells_each_change,
    ids_are_never_given_again,
    same_calls_same_memory,
    tokens_are_those_of_the_texts,
    reading_gives_held_entries_and_changes_none,
    reading_follows_updates_and_forgets,
    what_is_handed_out_cannot_be_changed,
    a_failed_call_changes_nothing,
    restored_memory_is_the_same,
    a_copy_goes_its_own_way,
    a_snapshot_replaces_the_one_before,
    an_interrupted_snapshot_leaves_the_one_before,
    every_damaged_byte_is_one_clear_error,
    nothing_to_restore_is_one_clear_error,
    another_store_is_refused,
    files_hold_no_code,
]


def run_machine(make: Make, examples: int = 40) -> None:
    """Random calls against a dictionary of what should be held."""

    class Machine(RuleBasedStateMachine):
        ids = Bundle("ids")

        def __init__(self) -> None:
            super().__init__()
            self.memory, self.model, self.changes = make(), {}, 0
            self.folder = Path(tempfile.mkdtemp())

        def teardown(self) -> None:
            shutil.rmtree(self.folder)

        @rule(target=ids, text=TEXTS, sources=SOURCES, fields=FIELDS)
        def write(self, text, sources, fields):
            id = self.memory.write(text, cause="write", sources=sources, fields=fields)
            assert id not in {change.id for change in list(self.memory.history)[:-1]}
            self.model[id] = (text, tuple(sources), fields)
            self.changes += 1
            return id

        @rule(id=ids, text=TEXTS, fields=st.none() | FIELDS)
        def update(self, id, text, fields):
            if id not in self.model:
                with pytest.raises(UnknownEntry):
                    self.memory.update(id, text, cause="update")
                return
            self.memory.update(id, text, cause="update", fields=fields)
            _, sources, old = self.model[id]
            self.model[id] = (text, sources, old if fields is None else fields)
            self.changes += 1

        @rule(id=ids)
        def forget(self, id):
            if id not in self.model:
                with pytest.raises(UnknownEntry):
                    self.memory.forget(id, cause="forget")
                return
            self.memory.forget(id, cause="forget")
            del self.model[id]
            self.changes += 1

        @rule(days=st.integers(0, 3))
        def wait(self, days):
            self.memory.now += days

        @rule(query=QUERIES, k=st.integers(1, 4))
        def read(self, query, k):
            found = self.memory.read(query, k)
            assert len({entry.id for entry in found}) == len(found) <= k
            assert all(self.model[entry.id][0] == entry.text for entry in found)

        @rule(query=QUERIES)
        def restore(self, query):
            self.memory.snapshot(self.folder)
            again = make()
            again.restore(self.folder)
            assert state(again) == state(self.memory)
            assert again.read(query, 3) == self.memory.read(query, 3)
            self.memory = again

        @invariant()
        def as_modelled(self):
            held = {e.id: (e.text, e.sources, dict(e.fields)) for e in self.memory.entries()}
            assert held == self.model and list(held) == list(self.model)
            assert replay(self.memory.history) == self.memory.entries()
            assert len(self.memory.history) == self.changes

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
