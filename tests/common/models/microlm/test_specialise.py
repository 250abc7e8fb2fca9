"""Specialisation: what is trained and what is not, the same bytes again, resumed, merged, cached, the right way."""

import hashlib
import json
import math
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from common.experiments.context import Context
from common.experiments.errors import UserError
from common.models.language_model import Sampling, encode
from common.models.microlm.demonstrations import Demonstration, Teaching
from common.models.microlm.model import Shape, build_model
from common.models.microlm.recipe import microlm_tokenizer
from common.models.microlm.specialise import (
    DemonstrationData,
    accuracy,
    artifact_key,
    example,
    specialise,
)
from common.models.microlm.tokenizer import save_tokenizer
from common.models.microlm.tuning import Tuning
from common.models.settings import SHIPPED
from common.models.toy import toy_checkpoint
from common.models.transformers_lm import TransformersLM
from tests.common.models.microlm.toy_paper import EQUAL, held_out, taught
from tests.common.training.interrupting import Stop, save_often, stop_at

SHOWN = taught(Teaching(60, EQUAL))
TUNING = Tuning(rank=4, alpha=8.0, steps=6, step_tokens=256, replay=0.25, lr=1e-2, warmup=2)
LORA = replace(TUNING, method="lora", embeddings=False)
EMBEDDED = replace(TUNING, method="lora")
MUON = replace(TUNING, muon=True)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An untrained MicroLM of two narrow layers."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = microlm_tokenizer()
    build_model(Shape(width=32, layers=2, inner=32), tokenizer, seed=0).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def full(base, tmp_path_factory):
    return specialise(base, SHOWN, TUNING, tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def lora(base, tmp_path_factory):
    return specialise(base, SHOWN, LORA, tmp_path_factory.mktemp("lora"))


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def bytes_of(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_the_prompt_is_context_and_the_answer_with_its_end_is_the_target():
    tokenizer = microlm_tokenizer()
    earlier = ({"role": "user", "content": "Repeat: yes"}, {"role": "assistant", "content": "yes"})
    shown = Demonstration((*earlier, {"role": "user", "content": "Repeat: Balman"}), "Balman")
    made = example(tokenizer, shown)
    targets = made.ids[made.weights > 0]
    assert tokenizer.decode(targets) == "Balman<|end|>"
    assert made.ids[made.weights == 0].tolist() == encode(tokenizer, shown.prompt)  # as generation renders it


def test_steps_have_their_share_of_replay_and_go_round_all_demonstrations():
    tokenizer = microlm_tokenizer()
    data = DemonstrationData(SHOWN, replace(TUNING, steps=40, replay=0.0), tokenizer)
    rows = [row for i in range(40) for batch in data.step(i) for row in batch.ids]
    assert {tuple(row[row != 0].tolist()) for row in rows} == {tuple(one.ids.tolist()) for one in data.examples}
    mixed = DemonstrationData(SHOWN, replace(TUNING, steps=40, step_tokens=2048), tokenizer)
    own = {tuple(one.ids.tolist()) for one in mixed.examples}
    tokens, replayed = 0, 0
    for i in range(40):
        for batch in mixed.step(i):
            for row in batch.ids:
                ids = tuple(row[row != 0].tolist())
                tokens += len(ids)
                replayed += len(ids) if ids not in own else 0
    assert abs(replayed / tokens - 0.25) < 0.04  # a step ends with a whole conversation
    assert abs(tokens / 40 - 2048) < 150
    assert [b.ids.tolist() for b in mixed.step(7)] == [b.ids.tolist() for b in mixed.step(7)]


def test_full_training_learns_and_writes_an_ordinary_checkpoint(full, base):
    losses = [json.loads(line)["loss"] for line in (full / "training.jsonl").read_text().splitlines()]
    assert losses[0] == pytest.approx(math.log(3136), rel=0.1)  # untrained: uniform over the vocabulary
    assert losses[-1] < losses[0] - 1
    assert [path.name for path in full.rglob("*.safetensors")] == ["model.safetensors"]
    record = json.loads((full / "recipe.json").read_text())
    assert record["demonstrations"]["rewrite"] == record["demonstrations"]["route"] == {"": 30}
    assert TransformersLM.load(str(full)).tokenizer.chat_template


def test_lora_changes_linear_layers_by_its_rank_and_nothing_else(lora, base):
    before, after = load(base).state_dict(), load(lora).state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    linear = {f"{name}.weight" for name, part in load(base).named_modules() if isinstance(part, torch.nn.Linear)}
    assert changed == linear - {"lm_head.weight"}
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= LORA.rank


def test_merged_and_unmerged_compute_the_same(lora, base):
    ids = torch.arange(10, 60).view(2, 25)
    unmerged = PeftModel.from_pretrained(load(base), lora / "adapter").eval()
    plain, merged = load(base)(ids).logits, load(lora)(ids).logits
    torch.testing.assert_close(merged, unmerged(ids).logits, rtol=1e-4, atol=1e-4)
    assert (merged - plain).abs().max() > 0.1
    assert all("lora" in name for name in load_file(lora / "adapter" / "adapter_model.safetensors"))


def test_lora_with_embeddings_changes_those_of_the_tokens_shown_alone(base, tmp_path):
    tuning = replace(EMBEDDED, replay=0.0)
    specialise(base, SHOWN, tuning, tmp_path)
    before, after = load(base).get_input_embeddings().weight, load(tmp_path)
    shown = set(DemonstrationData(SHOWN, tuning, microlm_tokenizer()).tokens())
    changed = (after.get_input_embeddings().weight != before).any(1).nonzero()[:, 0].tolist()
    assert set(changed) == shown
    assert after.get_output_embeddings().weight is after.get_input_embeddings().weight
    ids = torch.tensor([sorted(shown)[:30]])
    unmerged = PeftModel.from_pretrained(load(base), tmp_path / "adapter").eval()
    torch.testing.assert_close(after(ids).logits, unmerged(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tuning", [TUNING, LORA, EMBEDDED, MUON], ids=["full", "lora", "embedded", "muon"])
def test_interrupted_and_resumed_it_ends_in_the_same_bytes(tuning, base, tmp_path, monkeypatch):
    whole = specialise(base, SHOWN, tuning, tmp_path / "whole")
    folder = tmp_path / "interrupted"

    save_often(monkeypatch)
    with pytest.raises(Stop):
        specialise(base, SHOWN, tuning, folder, say=stop_at(4))
    assert not (folder / "model.safetensors").exists()
    steps = []
    specialise(base, SHOWN, tuning, folder, say=lambda line: steps.append(line.split()[1]))
    assert steps == ["4", "5", "6"]
    assert bytes_of(folder) == bytes_of(whole)


def test_muon_moves_matrices_in_all_directions_alike_and_is_not_for_lora(base, full, tmp_path):
    before, adamw = load(base).state_dict(), load(full).state_dict()
    after = load(specialise(base, SHOWN, replace(MUON, lr=TUNING.lr), tmp_path)).state_dict()
    moved = {name for name in before if not torch.equal(after[name], adamw[name])}
    matrices = {name for name in before if before[name].dim() == 2 and "embed" not in name and "lm_head" not in name}
    assert matrices <= moved
    change = {name: torch.linalg.svdvals(after[name] - before[name]) for name in matrices}
    plain = {name: torch.linalg.svdvals(adamw[name] - before[name]) for name in matrices}
    flatter = [(c[0] / c.mean()) < (plain[name][0] / plain[name].mean()) for name, c in change.items()]
    assert sum(flatter) > 0.8 * len(flatter)  # orthogonal updates reach all directions alike
    with pytest.raises(UserError, match="muon is for method full"):
        replace(LORA, muon=True)


def test_another_seed_gives_other_weights(full, base, tmp_path):
    assert bytes_of(specialise(base, SHOWN, replace(TUNING, seed=1), tmp_path)) != bytes_of(full)


def test_a_finished_folder_is_left_alone_and_serves_nothing_else(full, base):
    written = (full / "model.safetensors").stat().st_mtime_ns
    specialise(base, SHOWN, TUNING, full)
    assert (full / "model.safetensors").stat().st_mtime_ns == written
    for other in ((SHOWN[1:], TUNING), (SHOWN, replace(TUNING, steps=7))):
        with pytest.raises(ValueError, match="another recipe"):
            specialise(base, *other, full)


def test_rows_of_a_table_share_one_training(base, tmp_path):
    built = []

    def of(cell, teaching, tuning):
        def build(folder):
            built.append((teaching, tuning))
            specialise(base, taught(teaching), tuning, folder)

        context = Context(seed=cell, folder=tmp_path / f"cell{cell}", artifacts=tmp_path / "artifacts")
        return context.artifact("toy", artifact_key(base, tuning, teaching), build)

    tuning, teaching = replace(TUNING, steps=1), Teaching(8, EQUAL)
    first = of(0, teaching, tuning)
    assert of(1, Teaching(8, EQUAL), tuning) == first
    assert len(built) == 1
    others = [of(2, replace(teaching, seed=1), tuning), of(3, teaching, replace(tuning, replay=0.0))]
    assert len({first, *others}) == len(built) == 3
    assert artifact_key(base, tuning, teaching)["base"] != artifact_key("microlm", tuning, teaching)["base"]


def test_a_foreign_model_is_specialised_without_replay(tmp_path):
    base = toy_checkpoint("llama", tmp_path / "llama")
    tuning = replace(TUNING, method="lora", replay=0.0, steps=2)
    folder = specialise(base, SHOWN[:4], tuning, tmp_path / "toy")
    assert bytes_of(folder) != bytes_of(base)
    assert TransformersLM.load(str(folder), device="cpu").generate([SHOWN[0].prompt], Sampling(max_tokens=2))


def test_mistakes(base, tmp_path):
    with pytest.raises(ValueError, match="no demonstrations"):
        specialise(base, [], TUNING, tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        specialise(tmp_path / "nowhere", SHOWN, TUNING, tmp_path)
    with pytest.raises(UserError, match=r"replay is of MicroLM's skills, .* model 'llama' .* set replay to 0"):
        specialise(toy_checkpoint("llama", tmp_path / "llama"), SHOWN, TUNING, tmp_path / "toy")
    with pytest.raises(ValueError, match="0 steps specialises nothing"):
        specialise(base, SHOWN, Tuning(steps=0), tmp_path)
    with pytest.raises(UserError, match="unknown method of tuning 'lorra'; did you mean 'lora'"):
        Tuning(method="lorra")
    for bad in ({"replay": 1.0}, {"steps": -1}, {"rank": 0}):
        with pytest.raises(UserError, match=next(iter(bad))):
            Tuning(**bad)


def test_a_few_steps_from_the_shipped_weights_go_the_right_way(tmp_path):
    asked = held_out(24)
    prompts, answers = [shown.prompt for shown in asked], [shown.answer for shown in asked]

    def nats(folder):
        """Mean over answers, by source, of the negative log-probability."""
        scores = TransformersLM.load(str(folder), device="cpu").score(prompts, answers)
        sources = {shown.source for shown in asked}
        lost = dict.fromkeys(sources, 0.0)
        for shown, score in zip(asked, scores, strict=True):
            lost[shown.source] -= score.total / 12
        return lost

    tuning = Tuning(steps=10, step_tokens=384, replay=0.0, lr=1e-3, warmup=3)
    specialise("microlm", taught(Teaching(200, EQUAL)), tuning, tmp_path / "toy")
    before, after = nats(SHIPPED["microlm"]), nats(tmp_path / "toy")
    assert all(after[source] < 0.6 * before[source] for source in before), (before, after)
    assert set(accuracy(TransformersLM.load(str(tmp_path / "toy"), device="cpu"), asked, 40)) == {"rewrite", "route"}
