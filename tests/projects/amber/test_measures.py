"""What is measured: the dossier's worked numbers, and steps judged by world truth on records written by hand."""

import pytest

from common.models.meter import Usage
from projects.amber.data import Asked, Corpus, Hop, QuestionSet
from projects.amber.measures import answer_metrics, costs, filter_quality, gains, score, step_metrics


def asked(number, *golds, hops=()):
    return Asked(str(number), f"Question {number}?", tuple((gold,) for gold in golds), tuple(hops), True)


def scored(name, questions, answers):
    one = QuestionSet(name, tuple(questions), Corpus({}))
    return score(one, [{"answer": answer} for answer in answers])


def test_accuracy_is_containment_and_f1_counts_words():
    [first, second] = scored("squad", [asked(0, "Orun"), asked(1, "Orun")], ["It is orun city", "Or un"])
    assert (first.scores["contains"], second.scores["contains"]) == (1, 0)
    assert first.scores["f1"] == pytest.approx(0.4)


def test_two_of_three_and_three_of_three_sub_answers():
    found = scored("asqa", [asked(0, "a1", "b1", "c1"), asked(1, "a2", "b2", "c2")], ["a1; b1", "c2; a2; b2"])
    metrics = answer_metrics({"asqa": found})
    assert metrics["str_em"] == pytest.approx(0.8333, abs=5e-5)
    assert metrics["str_hit"] == 0.5
    assert "acc" not in metrics


def test_a_mean_over_sets_gives_each_set_its_share():
    squad = scored("squad", [asked(i, "x") for i in range(4)], ["x", "x", "x", "y"])
    asqa = scored("asqa", [asked(0, "a", "b")], ["a"])
    metrics = answer_metrics({"squad": squad, "asqa": asqa})
    assert (metrics["acc"], metrics["str_em"], metrics["mean"]) == (0.75, 0.5, 0.625)


def test_gains_are_over_the_reference_and_their_gap_is_hard_less_easy():
    questions = [asked(i, "x") for i in range(2)]
    none, half, whole = (scored("squad", questions, answers) for answers in (["y", "y"], ["x", "y"], ["x", "x"]))
    ours = {"squad": half, "2wiki": whole, "hotpotqa": half}
    theirs = {"squad": half, "2wiki": none, "hotpotqa": none}
    found = gains(ours, theirs)
    assert found == {"gain": 0.5, "gain_multi": 0.75, "gain_easy": 0.0, "gain_gap": 0.75}
    assert gains({"squad": half}, {"squad": none}) == {"gain": 0.5}


def test_filter_of_ten_passages():
    relevant = [True] * 4 + [False] * 6
    kept = [True] * 5 + [False] * 5
    found = filter_quality(relevant, kept)
    assert found == {"chunk_accuracy": 0.9, "eliminated": pytest.approx(5 / 6), "chunk_recall": 1}
    assert filter_quality([], []) == {}
    assert "eliminated" not in filter_quality([True], [True])


def test_costs_are_for_a_question():
    usage = {"draft": Usage(1, 8, 100, 20, 3.0), "chunk": Usage(2, 12, 60, 20, 1.0)}
    assert costs(usage, 4) == {"calls": 5.0, "tokens": 50.0, "seconds": 1.0}


HOPS = (
    Hop((("p1", "Veld has Ada as mayor."),), "Veld mayor", "Veld | mayor | Ada"),
    Hop((("p2", "Ada comes from Orun."),), "Ada birthplace", "Ada | birthplace | Orun"),
)


def step(before, text, draft, refined, sufficient, retrieved=("p1", "x"), kept=("p1",)):
    after = refined or draft or before
    texts = {"before": before, "text": text, "draft": draft, "refined": refined, "after": after}
    return texts | {"sufficient": sufficient, "retrieved": list(retrieved), "kept": list(kept)}


def test_steps_are_judged_by_what_the_text_adds_to_the_memory():
    first, second = (hop.note for hop in HOPS)
    both = f"{first}\n{second}"
    text, more = "Veld has Ada as mayor.", "Ada comes from Orun."
    records = [
        {"repeated": 0, "rounds": [step("", text, first, first, False), step(first, more, both, both, True)]},  # right
        {"repeated": 1, "rounds": [step("", text, "Veld | mayor | Bo", first, True)]},  # repaired, judged too soon
        {"repeated": 0, "rounds": [step("", text, first, "Veld | mayor | Bo", False, kept=("x",))]},  # broken
    ]
    found = step_metrics([asked(i, "Orun", hops=HOPS) for i in range(3)], records)
    assert found["rounds"] == pytest.approx(4 / 3)
    assert found["repeated"] == pytest.approx(1 / 3)
    assert found["draft_right"] == 0.75
    assert found["repaired"] == 1
    assert found["broken"] == pytest.approx(1 / 3)
    assert found["changed"] == 0.5
    assert found["judge_precision"] == 0.5
    assert found["judge_recall"] == 1
    assert found["chunk_accuracy"] == 0.75  # three rounds keep p1 alone, one keeps x alone
    assert found["chunk_recall"] == 0.75
