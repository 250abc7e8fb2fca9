"""Revision and tokenizer of a model from its settings: those of the model that `build` makes."""

from pathlib import Path

import pytest

from common.experiments.errors import UserError
from common.models.build import build
from common.models.hub import folder_revision
from common.models.local import revision_of, tokenizer_of
from common.models.settings import LanguageModelSettings
from common.models.toy import toy_checkpoint


@pytest.mark.parametrize("shipped", [True, False])
def test_they_are_those_of_the_model_that_is_built(shipped: bool, tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    settings = LanguageModelSettings("microlm" if shipped else str(toy_checkpoint("llama", folder)), device="cpu")
    lm = build(settings)
    assert revision_of(settings) == lm.revision
    assert tokenizer_of(settings).get_vocab() == lm.tokenizer.get_vocab()  # type: ignore[attr-defined]
    assert shipped or revision_of(settings) == folder_revision(folder)


def test_a_model_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    for ask in (revision_of, tokenizer_of):
        with pytest.raises(UserError, match=r"no model in .*absent: no such folder"):
            ask(LanguageModelSettings(str(tmp_path / "absent")))
