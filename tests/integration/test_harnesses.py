"""Inspect and lm-evaluation-harness read what `repro export` writes: figures and items arrive as the report has them.

They also evaluate MicroLM on our items, as the guide says, and find what our own code finds. The two are in an
environment of their own (`make harnesses`), so their own functions are called in its interpreter.
"""

import json
import os
import re
import subprocess
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from common.experiments.export import export
from common.experiments.fingerprint import ROOT
from common.models.build import build
from common.models.microlm.skill_table import GREEDY, is_right
from common.models.settings import LanguageModelSettings
from tests.common.experiments.test_site import HOSTILE, kept, report
from tests.test_guide import GUIDE, steps

FOLDER = ROOT / ".venv-harnesses"
PYTHON = FOLDER / "bin" / "python"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (FOLDER / ".done").exists(), reason="no harnesses here: `make harnesses` was not run, or failed"
    ),
]
INSPECT = """
import json, sys
from inspect_ai.log import read_eval_log, write_eval_log
log = read_eval_log(sys.argv[1])
write_eval_log(log, sys.argv[1] + ".eval")  # its own format, and back
again = read_eval_log(sys.argv[1] + ".eval")
print(json.dumps([{
    "status": each.status, "task": each.eval.task, "model": each.eval.model, "created": each.eval.created,
    "revision": each.eval.revision.commit, "arguments": each.eval.task_args, "packages": each.eval.packages,
    "scores": {s.name: {name: metric.value for name, metric in s.metrics.items()} for s in each.results.scores},
    "samples": [{
        "id": s.id, "input": s.input, "target": s.target, "answer": s.output.completion,
        "scores": {name: score.value for name, score in s.scores.items()}, "metadata": s.metadata,
    } for s in sorted(each.samples, key=lambda sample: sample.id)],  # its own format keeps no order
} for each in (log, again)]))
"""
HARNESS = """
import json, sys
from lm_eval.utils import get_latest_filename, get_results_filenames, make_table
[name] = get_results_filenames(sys.argv[1:])
print(json.dumps([make_table(json.load(open(name))), get_latest_filename([name])]))
"""


def in_harness(script: str, path: Path) -> Any:
    done = subprocess.run([PYTHON, "-c", script, str(path)], capture_output=True, text=True, cwd=path.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def made() -> dict[str, Any]:
    """A report of two columns with kept items; figures that only their exact digits tell apart, and hostile words."""
    items = [
        {"question": "who?", "prediction": "Ada", "golds": [["Ada"], ["A."]], "scores": {"em": 1.0, "f1": 1 / 3}},
        {"prediction": HOSTILE, "golds": "Bo", "input": 76, "scores": {"em": 0.0}},
    ]
    columns = [{"id": "corpus", "label": "corpus"}, {"id": "other", "label": "another"}]
    made = report(columns=columns, evidence=[kept(items={"answers": items}), kept(column="other", items={"x": items})])
    alone = {"column": "other", "mean": 0.1 + 0.2, "n_seeds": 1, "seeds": [0], "values": [0.1 + 0.2]}
    made["cells"] += [{**made["cells"][0], **alone}]
    made["conditions"] += [{**made["conditions"][0], "column": "other"}]
    return made


def test_inspect_reads_scores_and_samples(tmp_path: Path) -> None:
    path, table = tmp_path / "log.json", made()
    path.write_text(export(table, "inspect", "a"))
    log, again = in_harness(INSPECT, path)
    assert log == again
    assert (log["status"], log["task"], log["model"]) == ("success", "dsi_pp/continual.tiny", "a")
    assert log["revision"] == table["commit"] and log["packages"] == table["versions"]
    assert log["arguments"]["other"] == {"lr": 0.1, "model.row": "a"}
    own = [cell for cell in table["cells"] if cell["row"] == "a"]
    assert {(column, name): value for column, found in log["scores"].items() for name, value in found.items()} == {
        (cell["column"], cell["metric"]): cell["mean"] for cell in own
    }
    assert [sample["id"] for sample in log["samples"]] == [
        "corpus/answers/0", "corpus/answers/1", "other/x/0", "other/x/1"
    ]  # fmt: skip
    first, second = log["samples"][:2]
    assert (first["input"], first["target"], first["answer"]) == ("who?", ["Ada", "A."], "Ada")
    assert (second["input"], second["target"], second["answer"]) == ("", "Bo", HOSTILE)  # a number is no question
    items = table["evidence"][0]["items"]["answers"]
    for sample, item in zip(log["samples"], items * 2, strict=True):
        assert sample["scores"] == item["scores"] and sample["metadata"] == {**item, "seed": 0}


def test_the_harness_prints_the_figures_of_a_results_file(tmp_path: Path) -> None:
    path, table = tmp_path / "results_2026-07-01T10-00-00.json", made()
    path.write_text(export(table, "lm-eval", "a"))
    text, latest = in_harness(HARNESS, path)
    assert latest == str(path)
    lines = [[word.strip() for word in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    assert [line[0] for line in lines] == ["corpus", "", "another"]
    assert [line[4:6] for line in lines] == [["hits", "↑"], ["tokens", "↓"], ["hits", "↑"]]
    assert [float(line[6]) for line in lines] == [0.2, 900.0, 0.3]  # it prints four digits
    assert [line[8] for line in lines[2:]] == ["N/A"] and [float(line[8]) for line in lines[:2]] == [0.01, 0.01]


@pytest.mark.parametrize("name", ["amber/headline.tiny", "mem_alpha/headline.tiny"])
def test_committed_reports_are_read_too(tmp_path: Path, name: str) -> None:
    table = json.loads((ROOT / "reports" / f"{name}.json").read_text())
    entry = next(entry for entry in table["evidence"] if entry["items"])
    path = tmp_path / "log.json"
    path.write_text(export(table, "inspect", entry["row"]))
    log, again = in_harness(INSPECT, path)
    assert log == again and log["samples"]
    means = {
        (cell["column"], cell["metric"]): cell["mean"]
        for cell in table["cells"]
        if cell["row"] == entry["row"] and cell["mean"] is not None
    }
    assert {(column, name): value for column, found in log["scores"].items() for name, value in found.items()} == means


@dataclass(frozen=True)
class Followed:
    """The guide's section on harnesses, followed up to its commands.

    Attributes:
        folder: with the items, and the tasks of both.
        commands: harness -> its command.
        said: what our own code has MicroLM say to each item.
        right: whether our own code finds it right.
    """

    folder: Path
    commands: dict[str, str]
    said: list[str]
    right: list[bool]

    def run(self, name: str, options: str) -> None:
        """Run the command of a harness, offline, with the caches of its own in the folder."""
        offline = {"HOME": str(self.folder), "HF_HOME": str(self.folder / "hub"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            ["bash", "-c", f"{self.commands[name]} {options}"],
            cwd=self.folder, env=os.environ | offline, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    folder, lm = tmp_path_factory.mktemp("guide"), build(LanguageModelSettings("microlm"))
    [section] = re.findall(r"^## Evaluation harnesses\n.*?(?=^## |\Z)", (GUIDE / "reuse.md").read_text(), re.M | re.S)
    [python] = [step.text for step in steps(section) if step.kind == "python"]
    [task] = [step.text for step in steps(section) if step.kind == "yaml"]
    names: dict[str, Any] = {"Path": Path, "lm": lm}
    with chdir(folder):
        exec(compile(python, "reuse.md", "exec"), names)
    [inspected] = [step.text for step in steps(section) if step.kind == "py"]  # not ours to run: Inspect's
    (folder / "reading.yaml").write_text(task)
    (folder / "reading.py").write_text(inspected)
    for name in ("common", FOLDER.name):  # the guide is at the repository's root
        (folder / name).symlink_to(ROOT / name)
    typed = re.findall(r"^    (\S+/(\w+) (?:.*\\\n)*.*)", section, re.M)
    items = names["items"]
    said = [done.text for done in lm.generate([item.prompt for item in items], GREEDY)]
    right = [is_right(item, text) for item, text in zip(items, said, strict=True)]
    assert 0 < sum(right) < len(right)
    return Followed(folder, {name: command for command, name in typed}, said, right)


def test_the_harness_evaluates_our_model_on_our_items_as_we_do(followed: Followed) -> None:
    followed.run("lm_eval", "--output_path out --log_samples")
    [results], [log] = followed.folder.glob("out/*/results_*.json"), followed.folder.glob("out/*/samples_*.jsonl")
    samples = [json.loads(line) for line in log.read_text().splitlines()]
    assert [sample["filtered_resps"] for sample in samples] == [[text] for text in followed.said]
    assert [sample["exact_match"] for sample in samples] == followed.right
    figure = json.loads(results.read_text())["results"]["reading"]["exact_match,none"]
    assert figure == pytest.approx(mean(followed.right))


def test_inspect_evaluates_our_model_on_our_items_as_we_do(followed: Followed) -> None:
    followed.run("inspect", "--log-dir logs --log-format json --display none")
    [path] = followed.folder.glob("logs/*.json")
    log = json.loads(path.read_text())
    samples = sorted(log["samples"], key=lambda sample: sample["id"])
    assert [sample["output"]["choices"][0]["message"]["content"] for sample in samples] == followed.said
    assert [sample["scores"]["exact"]["value"] == "C" for sample in samples] == followed.right
    [score] = log["results"]["scores"]
    assert score["metrics"]["mean"]["value"] == pytest.approx(mean(followed.right))
