"""The real files (needs REPRO_DATA): checksums, rows counted as its READMEs say, and what must hold in them."""

import re
from collections import Counter
from dataclasses import is_dataclass

import pytest

from common.data import (
    alfworld,
    arc_agi_1,
    archivalqa,
    bamboogle,
    counterfact,
    hotpotqa,
    locomo,
    longmemeval,
    lost_in_the_middle,
    memorybank,
    musique,
    nq_open,
    scienceworld,
    squad,
    textworld,
    two_wiki_multihop_qa,
    wikitext2,
    zsre,
)
from common.data.catalogue import DATASETS
from common.data.registry import find, missing, require
from common.experiments.errors import UserError

LOADERS = {
    ("2wikimultihopqa", "2wikimultihopqa_corpus.json.gz"): two_wiki_multihop_qa.load_corpus,
    ("2wikimultihopqa", "test200.jsonl"): two_wiki_multihop_qa.load,
    ("alfworld", "reflexion_env_results.jsonl.gz"): alfworld.load,
    ("arc_agi_1", "training.json.gz"): lambda data: arc_agi_1.load(data, "training"),
    ("arc_agi_1", "evaluation.json.gz"): lambda data: arc_agi_1.load(data, "evaluation"),
    ("archivalqa", "triple_filtering_qa.jsonl.gz"): archivalqa.load,
    ("bamboogle", "test125.jsonl"): bamboogle.load,
    ("counterfact", "counterfact-edit.json.gz"): lambda data: counterfact.load(data, "edit"),
    ("counterfact", "counterfact-train.json.gz"): lambda data: counterfact.load(data, "train"),
    ("counterfact", "counterfact-val.json"): lambda data: counterfact.load(data, "val"),
    ("counterfact", "known_1000.json"): counterfact.load_known,
    ("hotpotqa", "hotpot_dev_v1_simplified.json"): hotpotqa.load_dev_questions,
    ("hotpotqa", "hotpotqa_train.json"): hotpotqa.load,
    ("hotpotqa", "hotpotqa_train_corpus.json"): hotpotqa.load_corpus,
    ("hotpotqa", "demo_hotpot_test_v1_easy.json"): lambda data: hotpotqa.load(data, "demo_easy"),
    ("hotpotqa", "demo_hotpot_test_v1_medium.json"): lambda data: hotpotqa.load(data, "demo_medium"),
    ("hotpotqa", "demo_hotpot_test_v1_hard.json"): lambda data: hotpotqa.load(data, "demo_hard"),
    ("hotpotqa", "demo_hotpot_train_v1.1_10000.json"): lambda data: hotpotqa.load(data, "demo_train"),
    ("hotpotqa", "test200.jsonl"): hotpotqa.load_test200,
    ("locomo", "locomo10.json"): locomo.load,
    ("locomo", "zep_locomo_grades.json"): locomo.load_grades,
    ("longmemeval", "longmemeval_s_single.json"): longmemeval.load,
    ("lost_in_the_middle", "nq-open-oracle.jsonl.gz"): lost_in_the_middle.load_nq_oracle,
    ("lost_in_the_middle", "kv-retrieval-75_keys.jsonl.gz"): lambda data: lost_in_the_middle.load_key_values(data, 75),
    ("lost_in_the_middle", "kv-retrieval-140_keys.jsonl.gz"): lambda data: lost_in_the_middle.load_key_values(
        data, 140
    ),
    ("memorybank", "memory_bank_en.json"): memorybank.load,
    ("memorybank", "probing_questions_en.jsonl"): memorybank.load,
    ("memorybank", "memory_bank_cn.json"): lambda data: memorybank.load(data, "cn"),
    ("memorybank", "probing_questions_cn.jsonl"): lambda data: memorybank.load(data, "cn"),
    ("musique", "musique_train.json"): musique.load,
    ("musique", "musique_train_corpus.json"): musique.load_corpus,
    ("musique", "openie_musique_train_gpt-3.5-turbo-1106.json.gz"): musique.load_triples,
    ("musique", "test200.jsonl"): musique.load_test200,
    ("nq_open", "NQ-open.dev.jsonl"): nq_open.load,
    ("nq_open", "NQ-open.efficientqa.dev.1.1.jsonl"): lambda data: nq_open.load(data, "efficientqa_dev"),
    ("nq_open", "NQ-open.efficientqa.test.1.1.jsonl"): nq_open.load_judged,
    ("nq_open", "NQ-open.train_heldout_dpr_dev.jsonl"): lambda data: nq_open.load(data, "train_heldout"),
    ("scienceworld", "goldpaths_test_fold.jsonl.gz"): scienceworld.load,
    ("scienceworld", "train_indices.json"): lambda data: scienceworld.load_variations(data, "train"),
    ("scienceworld", "dev_indices.json"): lambda data: scienceworld.load_variations(data, "dev"),
    ("scienceworld", "test_indices.json"): lambda data: scienceworld.load_variations(data, "test"),
    ("scienceworld", "taskname2id.json"): scienceworld.load_task_numbers,
    ("scienceworld", "max_steps.json"): scienceworld.load_max_steps,
    ("scienceworld", "tasks.json"): scienceworld.load_tasks,
    ("scienceworld", "object_type_ids.tsv"): scienceworld.load_object_types,
    ("squad", "xquad.en.json"): squad.load,
    ("squad", "squad_v1.1_dev_questions_answers.jsonl"): squad.load_dev_questions,
    ("wikitext2", "valid.txt"): lambda data: wikitext2.load(data, "validation"),
    ("wikitext2", "test.txt"): lambda data: wikitext2.load(data, "test"),
    ("zsre", "zsre_mend_train-1k.json"): zsre.load,
    **{
        ("textworld", path): lambda data, name=name: [textworld.load_game(data, name)]
        for name, path in textworld.GAMES.items()
    },
}


def test_every_registered_file_of_rows_has_a_loader():
    counted = {(name, file.path) for name, entry in DATASETS.items() for file in entry.files if file.rows is not None}
    assert counted == set(LOADERS)


@pytest.mark.parametrize(("name", "path"), LOADERS)
def test_rows_are_typed_and_counted(mirror, name, path):
    rows = LOADERS[name, path](mirror)
    assert len(rows) == DATASETS[name].file(path).rows
    assert isinstance(rows, dict) or all(is_dataclass(row) and row.__dataclass_params__.frozen for row in rows)


@pytest.mark.parametrize("name", [name for name, entry in DATASETS.items() if entry.files])
def test_registry_and_mirror_readme_agree(mirror, name):
    """File, rows, checksum of the README's table; the first count of its `rows` cell that names our unit."""
    entry = DATASETS[name]
    table = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| [\d,]+ \| `([0-9a-f]{64})` \|$", read(mirror / name), re.M)
    assert {path: digest for path, _, digest in table} == {file.path: file.sha256 for file in entry.files}
    for path, cell, _ in table:
        counts = [int(count.replace(",", "")) for count in re.findall(r"[\d,]*\d", cell)]
        assert entry.file(path).rows in (*counts, None), f"{path}: {cell}"
        assert find(entry, path, mirror) == mirror / name / path
    require(entry, mirror)
    assert missing(entry, mirror) == []


def read(folder):
    return (folder / "README.md").read_text()


def test_the_mirror_holds_no_unregistered_set(mirror):
    assert {folder.name for folder in mirror.iterdir() if folder.is_dir()} == {
        n for n, e in DATASETS.items() if e.files
    }


def test_squad_answers_stand_at_their_offset(mirror):
    paragraphs = squad.load(mirror)
    questions = [(p, q) for p in paragraphs for q in p.questions]
    assert len(questions) == len({q.id for _, q in questions}) == 1190
    assert Counter(Counter(p.title for p in paragraphs).values()) == {5: 48}
    for paragraph, question in questions:
        (answer,) = question.answers
        assert paragraph.context[answer.start : answer.start + len(answer.text)] == answer.text
    assert {q.question for _, q in questions} <= {q.question for q in squad.load_dev_questions(mirror)}
    assert len({q.question.strip() for q in squad.load_dev_questions(mirror)}) == 10533


def test_nq_oracle_passages_hold_an_answer(mirror):
    rows = lost_in_the_middle.load_nq_oracle(mirror)
    assert all(any(answer.lower() in row.passage.lower() for answer in row.answers) for row in rows)
    assert len({row.passage for row in rows}) == 2600
    assert Counter(Counter(row.passage for row in rows).values()) == {1: 2551, 2: 44, 3: 4, 4: 1}


@pytest.mark.parametrize("keys", [75, 140])
def test_key_value_lists_hold_their_key_once(mirror, keys):
    for row in lost_in_the_middle.load_key_values(mirror, keys):
        assert len(row.pairs) == len(dict(row.pairs)) == keys
        assert dict(row.pairs)[row.key] == row.value


def test_nq_open_training_part_is_not_in_dev(mirror):
    dev, train = nq_open.load(mirror), nq_open.load(mirror, "train_heldout")
    assert not {row.question for row in dev} & {row.question for row in train}
    assert all(row.answers for row in dev + train)
    judged = nq_open.load_judged(mirror)
    assert [row.question for row in judged] == [row.question for row in nq_open.load(mirror, "efficientqa_test")]
    assert any(len(row.answers_enlarged) > len(row.answers) for row in judged)


def test_hotpot_supporting_facts_point_into_context_and_corpus(mirror):
    corpus = {article.title: article for article in hotpotqa.load_corpus(mirror)}
    facts, complete = 0, Counter()
    for subset in hotpotqa.SUBSETS:
        for row in hotpotqa.load(mirror, subset):
            titles = {article.title: article for article in row.context}
            found = all(title in titles for title, _ in row.supporting_facts)
            complete[subset] += found
            if subset == "train":
                facts += len(row.supporting_facts)
                assert all(sentence < len(corpus[title].sentences) for title, sentence in row.supporting_facts)
    assert facts == 229
    # demo_hard: retrieved contexts, mostly without the gold paragraphs
    assert complete == {"train": 100, "demo_easy": 10, "demo_medium": 10, "demo_train": 10, "demo_hard": 1}
    assert Counter(row.type for row in hotpotqa.load_dev_questions(mirror)) == {"bridge": 5918, "comparison": 1487}
    assert {row.question for row in hotpotqa.load_test200(mirror)} <= {
        row.question for row in hotpotqa.load_dev_questions(mirror)
    }
    assert "  " not in next(iter(corpus.values())).text


def test_musique_hops_point_at_supporting_paragraphs(mirror):
    rows = musique.load(mirror)
    assert Counter(len(row.hops) for row in rows) == {2: 68, 3: 27, 4: 5}
    assert all(row.paragraphs[hop.paragraph].is_supporting for row in rows for hop in row.hops)
    corpus = {(passage.title, passage.text) for passage in musique.load_corpus(mirror)}
    assert corpus == {(p.title, p.text) for row in rows for p in row.paragraphs}
    triples = [triple for passage in musique.load_triples(mirror) for triple in passage.triples]
    assert (len(triples), sum(len(triple) != 3 for triple in triples)) == (17419, 185)
    assert {(passage.title, passage.text) for passage in musique.load_triples(mirror)} == corpus


def test_two_wiki_files_hardly_overlap(mirror):
    titles = {passage.title for passage in two_wiki_multihop_qa.load_corpus(mirror) if len(passage.title) > 5}
    named = sum(any(t in row.question for t in titles) for row in two_wiki_multihop_qa.load(mirror))
    assert named < 30


def test_bamboogle_has_one_answer_each_seldom_in_lower_case(mirror):
    assert {len(row.answers) for row in bamboogle.load(mirror)} == {1}
    assert sum(row.answers[0] == row.answers[0].lower() for row in bamboogle.load(mirror)) == 28


def test_archivalqa_labels_and_splits(mirror):
    rows = archivalqa.load(mirror)
    assert Counter(row.acceptable for row in rows) == {True: 5699, False: 4301}
    assert Counter(row.split for row in rows) == {"train": 9000, "test": 1000}
    assert len({row.para_id for row in rows}) == 4646


def test_locomo_counts_and_categories(mirror):
    conversations = locomo.load(mirror)
    sessions = [session for conversation in conversations for session in conversation.sessions]
    turns = [turn for session in sessions for turn in session.turns]
    questions = [question for conversation in conversations for question in conversation.questions]
    assert (len(sessions), len(turns), len(questions)) == (272, 5882, 1986)
    assert Counter(question.category for question in questions) == {1: 282, 2: 321, 3: 96, 4: 841, 5: 446}
    unanswered = [question for question in questions if question.answer is None]
    assert len(unanswered) == 444 and {question.category for question in unanswered} == {5}
    assert all(question.adversarial_answer for question in unanswered)
    assert sum(len(question.evidence) for question in questions) == 2815
    for conversation in conversations:
        assert all(turn.id.startswith(f"D{s.number}:") for s in conversation.sessions for turn in s.turns)
        assert {turn.speaker for s in conversation.sessions for turn in s.turns} == set(conversation.speakers)


def test_locomo_grades_belong_to_the_answerable_questions(mirror):
    grades, conversations = locomo.load_grades(mirror), locomo.load(mirror)
    assert sum(grade.correct for grade in grades) / len(grades) == pytest.approx(0.7513, abs=5e-5)
    for i, conversation in enumerate(conversations):
        asked = Counter(question.question for question in conversation.questions if question.category < 5)
        assert Counter(grade.question for grade in grades if grade.conversation == i) == asked


def test_longmemeval_evidence_is_in_one_session(mirror):
    (row,) = longmemeval.load(mirror)
    assert (len(row.sessions), sum(len(session.turns) for session in row.sessions)) == (53, 550)
    evidence = {session.id for session in row.sessions if any(turn.has_answer for turn in session.turns)}
    assert evidence == set(row.answer_session_ids)
    assert sum(turn.has_answer for session in row.sessions for turn in session.turns) == 2


@pytest.mark.parametrize("language", ["en", "cn"])
def test_memorybank_histories_and_questions_join(mirror, language):
    users = memorybank.load(mirror, language)
    days = [day for user in users for day in user.days]
    assert (len(days), sum(len(day.exchanges) for day in days)) == (150, 566)
    assert sum(len(user.questions) for user in users) == 100 and all(user.questions for user in users)
    assert all(user.name == user.name.strip() for user in users)


def test_counterfact_parts_are_the_whole(mirror):
    edits = [edit for split in counterfact.SPLITS for edit in counterfact.load(mirror, split)]
    assert sorted(edit.case_id for edit in edits) == list(range(21919))
    assert all(edit.target_new != edit.ground_truth and edit.subject in edit.prompt for edit in edits)
    assert all("{}" in fact.template for fact in counterfact.load_known(mirror))


def test_zsre_locality_prefix_and_condition(mirror):
    rows = zsre.load(mirror)
    assert all(row.locality_question.startswith("nq question: ") for row in rows)
    assert all(row.condition.endswith(f"{row.alt} || {row.question}") for row in rows)
    assert sum(row.pred == row.answers[0] for row in rows) == 571


@pytest.mark.parametrize(("split", "tokens"), [("validation", 217646), ("test", 245569)])
def test_wikitext_token_counts_are_the_published_ones(mirror, split, tokens):
    assert sum(len(line.tokens) + 1 for line in wikitext2.load(mirror, split)) == tokens


@pytest.mark.parametrize(("split", "train", "test"), [("training", 1302, 416), ("evaluation", 1363, 419)])
def test_arc_grids_are_rectangles_of_colours(mirror, split, train, test):
    tasks = arc_agi_1.load(mirror, split)
    assert (sum(len(task.train) for task in tasks), sum(len(task.test) for task in tasks)) == (train, test)
    for grid in (grid for task in tasks for pair in task.train + task.test for grid in (pair.input, pair.output)):
        assert 1 <= len(grid) <= 30 and len({len(row) for row in grid}) == 1 and len(grid[0]) <= 30
        assert {colour for row in grid for colour in row} <= set(range(10))


def test_scienceworld_lists_join_with_the_episodes(mirror):
    episodes = scienceworld.load(mirror)
    assert sum(len(episode.steps) for episode in episodes) == 13853
    final = [episode.steps[-1].score for episode in episodes]
    assert sum(score == 1.0 for score in final) == 269 and all(0 <= score <= 1 for score in final)
    gold = {(episode.task, episode.variation) for episode in episodes}
    lists = {
        split: {(scienceworld.plain_name(v.task), v.variation) for v in scienceworld.load_variations(mirror, split)}
        for split in scienceworld.SPLITS
    }
    assert lists["test"] <= gold and not lists["train"] & gold and not lists["dev"] & gold
    assert {episode.task for episode in episodes} == {task.name for task in scienceworld.load_tasks(mirror)}
    numbered = {scienceworld.plain_name(task) for task in scienceworld.load_task_numbers(mirror)}
    assert len(numbered) == 29 and numbered < {task.name for task in scienceworld.load_tasks(mirror)}
    assert {v.task for v in scienceworld.load_variations(mirror, "train")} <= set(scienceworld.load_max_steps(mirror))
    assert sorted(scienceworld.load_object_types(mirror).values()) == list(range(218))


def test_alfworld_learning_curves_are_the_recorded_ones(mirror):
    solved = Counter((trial.run, trial.trial) for trial in alfworld.load(mirror) if trial.success)
    assert [solved["base", i] for i in range(7)] == [84, 94, 97, 98, 100, 101, 101]
    assert [solved["reflexion", i] for i in range(15)] == [
        84, 103, 111, 113, 117, 118, 123, 126, 128, 129, 130, 130, 131, 133, 134,
    ]  # fmt: skip
    game = alfworld.load_game(mirror)
    assert "(define (domain alfred)" in game.pddl_domain and game.trajectory["task_type"].startswith("pick_heat")


def test_textworld_reward_density(mirror):
    quests = {game.name: len(game.rewards) for game in textworld.load(mirror)}
    dense = {"Dense": 11, "Balanced": 5, "Sparse": 2}
    assert all(count == dense[re.findall("rewards(.*)_", name)[0]] for name, count in quests.items() if "_goal" in name)
    assert len(quests) == 8
    for game in textworld.load(mirror):
        assert game.walkthrough and game.facts[0].arguments[0] == ("P", "P")


def test_unknown_choices_name_the_nearest(mirror):
    for call, expected in [
        (lambda: nq_open.load(mirror, "efficientqa_tst"), "efficientqa_test"),
        (lambda: counterfact.load(mirror, "edits"), "edit"),
        (lambda: lost_in_the_middle.load_key_values(mirror, 141), "140"),
        (lambda: memorybank.load(mirror, "eng"), "en"),
        (lambda: textworld.load_game(mirror, "rewardsDense_goalBreif"), "rewardsDense_goalBrief"),
    ]:
        with pytest.raises(UserError, match=f"did you mean '{expected}'"):
            call()
