"""`repro cache` shows what is kept of each model and drops what it is told to."""

import pytest
from click.testing import CliRunner

from common.experiments.cli import cli
from common.experiments.errors import UserError
from common.models import embedding_cache, response_cache
from common.models.embedding_cache import CachedEncoder
from common.models.encoders import HashedWords
from common.models.language_model import Sampling
from common.models.response_cache import CachedLM
from tests.common.models.test_meter import Parrot

PARROT = "parrot@r1@test"


@pytest.fixture(autouse=True)
def filled(tmp_path, monkeypatch):
    """Two answers of one model, one of another, three vectors."""
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    other = Parrot()
    other.revision = "r2"
    CachedLM(Parrot(), response_cache.default_folder()).generate(["a", "b", "a"], Sampling())
    CachedLM(other, response_cache.default_folder()).generate(["a"], Sampling())
    CachedEncoder(HashedWords(16), embedding_cache.default_folder()).encode(["x", "y", "z"])
    return tmp_path


def run(*arguments):
    done = CliRunner().invoke(cli, ["cache", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output.splitlines()


def test_it_shows_places_counts_and_bytes_by_model(filled):
    lines = run()
    assert lines[0].startswith(f"responses in {filled / 'responses'}: 3 responses, ")
    assert lines[1].split()[:2] == [PARROT, "2"] and lines[2].split()[:2] == ["parrot@r2@test", "1"]
    assert lines[3].startswith(f"embeddings in {filled / 'embeddings'}: 3 embeddings, ")
    assert lines[4].split()[:2] == [HashedWords.name, "3"] and "16 dimensions" in lines[4]
    assert len(lines) == 5


def test_it_drops_one_model_one_kind_or_all(filled):
    assert run("--clear", "responses", "--model", PARROT) == [f"dropped 2 responses from {filled / 'responses'}"]
    assert [kept.model for kept in response_cache.entries(filled / "responses")] == ["parrot@r2@test"]
    assert len(embedding_cache.entries(filled / "embeddings")) == 1
    assert run("--clear", "embeddings") == [f"dropped 3 embeddings from {filled / 'embeddings'}"]
    run("--clear", "all")
    assert [line.split(": ")[1] for line in run()] == ["nothing", "nothing"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clear", "responses", "--model", "parot@r1@test"], f"did you mean '{PARROT}'"),
        (["--clear", "embeddings", "--model", PARROT], f"no vectors of '{PARROT}' are kept in"),
        (["--clear", "all", "--model", PARROT], "--model goes with --clear responses or --clear embeddings"),
        (["--model", PARROT], "add --clear responses or --clear embeddings"),
    ],
)
def test_a_mistake_is_one_line_and_drops_nothing(arguments, message):
    before = run()
    with pytest.raises(UserError) as error:
        run(*arguments)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert run() == before


def test_a_damaged_cache_is_one_line(filled):
    [entry] = embedding_cache.entries(filled / "embeddings")
    next(entry.folder.glob("*.npy")).write_bytes(b"half")
    with pytest.raises(UserError, match=r"is damaged .*; delete it"):
        run()
