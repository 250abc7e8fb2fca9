"""Exports: every figure arrives unrounded, text is escaped for its format, logs have the fields that readers want."""

import csv
import io
import json
import re
from typing import Any

import pytest

from common.experiments.cli import cli
from common.experiments.errors import UserError
from common.experiments.export import FORMATS, export
from tests.common.experiments.test_site import HOSTILE, kept, report


def two_columns() -> dict[str, Any]:
    """The report of the site's tests with a second column, which has one seed and no tokens."""
    made = report(evidence=[kept()], columns=[{"id": "corpus", "label": "A & B"}, {"id": "other", "label": "50%_x"}])
    alone = {"mean": 0.7, "ci_low": None, "ci_high": None, "n_seeds": 1, "seeds": [0], "values": [0.7]}
    extra = [{**cell, **alone, "column": "other"} for cell in made["cells"] if cell["metric"] == "hits"]
    made["cells"] += extra
    return made


def test_csv_holds_every_seed_unrounded() -> None:
    lines = list(csv.DictReader(io.StringIO(export(two_columns(), "csv"))))
    assert len(lines) == 2 * 2 * 2 + 2
    made = {(line["row"], line["column"], line["metric"], int(line["seed"])): float(line["value"]) for line in lines}
    for cell in two_columns()["cells"]:
        for seed, value in zip(cell["seeds"], cell["values"], strict=True):
            assert made[cell["row"], cell["column"], cell["metric"], seed] == value
    assert {line["unit"] for line in lines if line["metric"] == "hits"} == {"fraction"}
    assert lines[0]["paper"] == "dsi_pp" and lines[0]["table"] == "continual" and lines[0]["scale"] == "tiny"


def test_csv_quotes_hostile_names() -> None:
    made = two_columns()
    made["paper"] = HOSTILE
    lines = list(csv.DictReader(io.StringIO(export(made, "csv"))))
    assert {line["paper"] for line in lines} == {HOSTILE}


def test_latex_is_a_booktabs_table_with_its_signs_escaped() -> None:
    text = export(two_columns(), "latex")
    head, *lines = [line for line in text.split(r"\end{tabular}")[0].splitlines() if line.endswith("\\\\")]
    assert text.splitlines()[2] == r"\begin{tabular}{lrrrr}"
    assert head == r"Hits (\%) $\uparrow$ & A \& B & paper & 50\%\_x & paper \\"
    assert lines == [
        r"plain & 20.0 [10.0, 30.0] & --- & 70.0 & --- \\",
        r"replay & 50.0 [40.0, 60.0] & 40.0 $\surd$ & 70.0 & 40.0 $\surd$ \\",
    ]
    assert text.splitlines()[1].startswith(r"% paper: $\surd$ verified in the paper")
    assert text.splitlines()[1].endswith("; at tiny scale only directions, orders and ratios compare with ours")
    made = two_columns()
    made["rows"][0]["label"] = "\\input{x} $1^2~#"
    text = export(made, "latex")
    assert r"\textbackslash{}input\{x\} \$1\textasciicircum{}2\textasciitilde{}\#" in text


def test_markdown_has_a_line_per_row() -> None:
    made = two_columns()
    for cell in made["cells"]:
        cell["published"] = None
    lines = export(made, "markdown", metrics=["tokens", "hits"]).splitlines()
    assert lines[1] == "| --- | ---: | ---: | ---: |" and len(lines) == 4
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert lines[0] == "|  | A &amp; B: tokens ↓ | A &amp; B: Hits (%) ↑ | 50%\\_x: Hits (%) ↑ |"


def test_without_a_choice_each_metric_has_a_table_of_its_own_and_with_one_all_formats_keep_to_it() -> None:
    hits, tokens = export(two_columns(), "markdown").split("\n\n")[:2]
    assert hits.splitlines()[0] == "| Hits (%) ↑ | A &amp; B | paper | 50%\\_x | paper |"
    assert tokens.splitlines()[0] == "| tokens ↓ | A &amp; B | paper |"
    assert export(two_columns(), "latex").count(r"\begin{tabular}") == 2
    one = export(two_columns(), "latex", metrics=["tokens"])
    assert one.count(r"\begin{tabular}") == 1 and "Hits" not in one
    lines = csv.DictReader(io.StringIO(export(two_columns(), "csv", metrics=["tokens"])))
    assert {line["metric"] for line in lines} == {"tokens"}


# What lm-evaluation-harness 0.4 writes: `evaluate` and `simple_evaluate`, `add_env_info`, and the fields of
# `GeneralConfigTracker`; those of a task's config that are there for any kind of task are the fields of `TaskConfig`.
HARNESS = {
    "results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "samples",
    "config", "git_hash", "date", "pretty_env_info", "transformers_version", "lm_eval_version", "upper_git_hash",
    "task_hashes", "model_source", "model_name", "model_name_sanitized", "system_instruction", "chat_template",
    "start_time", "end_time", "total_evaluation_time_seconds",
}  # fmt: skip
TASK = {
    "task", "task_alias", "tag", "dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split",
    "test_split", "fewshot_split", "doc_to_text", "doc_to_target", "doc_to_choice", "process_results", "description",
    "target_delimiter", "fewshot_delimiter", "num_fewshot", "metric_list", "output_type", "generation_kwargs",
    "repeats", "filter_list", "should_decontaminate", "metadata",
}  # fmt: skip


def test_lm_eval_has_the_keys_of_its_results_files() -> None:
    """Keys and shapes of `results_*.json` as lm-evaluation-harness 0.4 writes them, and nothing that we do not know."""
    made = json.loads(export(two_columns(), "lm-eval", "a"))
    tasks = ["dsi_pp_continual_corpus", "dsi_pp_continual_other"]
    assert made.keys() <= HARNESS and all(config.keys() <= TASK for config in made["configs"].values())
    for part in ("results", "configs", "higher_is_better", "group_subtasks"):
        assert list(made[part]) == tasks
    assert [made[part] for part in ("versions", "n-shot", "n-samples")] == [{}, {}, {}]
    assert not {"output_type", "num_fewshot", "dataset_name"} & made["configs"][tasks[0]].keys()
    assert made["date"] == 1782900000.0  # 2026-07-01T10:00:00Z
    assert made["total_evaluation_time_seconds"] == "60.0" and made["model_name_sanitized"] == "plain"
    first, second = (made["results"][task] for task in tasks)
    assert first["hits,none"] == 0.2 and first["alias"] == "A & B"
    assert first["hits_stderr,none"] == pytest.approx(0.01)  # sd of 0.19 and 0.21 is 0.02 / √2, over √2
    assert second == {"alias": "50%_x", "hits,none": 0.7, "hits_stderr,none": "N/A"}
    assert made["higher_is_better"][tasks[0]] == {"hits": True, "tokens": False}
    assert made["configs"][tasks[0]]["metadata"]["settings"] == {"lr": 0.1, "model": {"row": "a"}}
    assert made["git_hash"] == "0123456789abcdef" and made["config"]["model"] == "a"


def test_inspect_has_the_required_fields_of_an_eval_log() -> None:
    """Required fields of EvalLog, EvalSpec, EvalSample, EvalScore and EvalMetric, version 2."""
    made = json.loads(export(two_columns(), "inspect", "a"))
    assert list(made) == ["version", "status", "eval", "plan", "results", "stats", "samples"]  # the order is format
    assert made["version"] == 2 and made["status"] == "success"
    assert {"created", "task", "dataset", "model", "config"} <= made["eval"].keys()
    assert made["eval"]["created"] == "2026-07-01T10:00:00+00:00"
    [sample] = made["samples"]
    assert {"id", "epoch", "input", "target"} <= sample.keys()
    assert sample["input"] == "who?" and sample["output"]["choices"][0]["message"]["content"] == "Ada"
    assert sample["metadata"]["prediction"] == "Ada"
    assert made["eval"]["task_args"]["corpus"] == {"lr": 0.1, "model.row": "a"}
    scores = {score["name"]: score for score in made["results"]["scores"]}
    assert scores["corpus"]["metrics"]["hits"] == {"name": "hits", "value": 0.2, "params": {}}
    assert "tokens" not in scores["other"]["metrics"]


def test_targets_are_a_text_or_texts() -> None:
    evidence = [kept(items={"answers": [{"golds": [["Ada"], ["Bo", "B."]]}, {"golds": "Ada"}, {"id": "7"}]})]
    samples = json.loads(export(report(evidence=evidence), "inspect", "a"))["samples"]
    assert [sample["target"] for sample in samples] == [["Ada", "Bo", "B."], "Ada", ""]
    assert samples[2]["input"] == ""  # a name is no question


@pytest.mark.parametrize(
    ("form", "row", "metrics", "said"),
    [
        ("csv", "a", None, "--row is for lm-eval and inspect; csv holds all rows"),
        ("csv", None, ["hits", "tokns"], "unknown metric 'tokns'; did you mean 'tokens'?"),
        ("latex", None, ["f1"], "unknown metric 'f1'; choices: hits, tokens"),
        ("lm-eval", "a", ["hits"], "--metrics is for csv, latex, markdown; lm-eval holds all metrics"),
        ("lm-eval", None, None, "holds one row: add --row, one of a, b"),
        ("lm-eval", "c", None, "unknown row 'c'"),
        ("inspect", "b", None, "the report kept no items of 'b'"),
    ],
)
def test_mistakes_are_one_line(form: str, row: str | None, metrics: list[str] | None, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        export(two_columns(), form, row, metrics)


def test_the_command_knows_every_format(tmp_path: Any) -> None:
    choices = next(option.type for option in cli.commands["export"].params if option.name == "form")
    assert tuple(choices.choices) == FORMATS  # type: ignore[attr-defined]


def test_the_command_says_on_standard_error_what_it_exports(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REPRO_REPORTS", str(tmp_path / "reports"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "reports" / "dsi_pp" / "continual.tiny.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(two_columns()))
    said = "exported: reports/dsi_pp/continual.tiny.json, seeds 0, 1, commit 0123456789ab\n"
    command = ["export", "dsi_pp/continual", "--format", "csv"]
    cli.main(command, standalone_mode=False)
    out, err = capfd.readouterr()
    assert (out, err) == (export(two_columns(), "csv"), said)
    cli.main([*command, "--metrics", " hits,"], standalone_mode=False)
    assert capfd.readouterr().out == export(two_columns(), "csv", metrics=["hits"])
    cli.main([*command, "-o", "out.csv"], standalone_mode=False)
    assert capfd.readouterr() == ("", said) and (tmp_path / "out.csv").read_text() == out
