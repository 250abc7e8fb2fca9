"""README tells the truth: its commands parse, its tables and files exist, its list of papers is complete."""

import json
import re
import shlex

import click
import pytest
import yaml

from common.experiments import catalogue
from common.experiments.cli import cli
from common.experiments.cluster import scripts
from common.experiments.compose import compose_table
from common.experiments.explain import find
from common.experiments.fingerprint import ROOT
from common.experiments.render import decimals_of, format_value, markdown
from common.experiments.report import read_report
from common.experiments.sweep import grid
from common.experiments.trials import Space
from common.models.microlm.skill_table import WEIGHTS, Row, targets, tokens_trained
from common.models.microlm.skill_table import markdown as skills_markdown

README = (ROOT / "README.md").read_text()
CLUSTER = sorted(ROOT.glob("slurm/*.md"))
PROFILES = {  # that a page has its reader make -> what it is a copy of
    copy: profile
    for page in CLUSTER
    for profile, copy in re.findall(r"^    cp configs/launcher/(\w+)\S+ configs/launcher/(\w+)", page.read_text(), re.M)
}
GUIDE = sorted(ROOT.glob("common/guide/*.md"))
PAGES = [ROOT / "README.md", *CLUSTER, *GUIDE, *ROOT.glob("projects/*/README.md"), *ROOT.glob("common/**/README.md")]
COMMANDS = sorted(
    {
        line.split("  #")[0].strip().strip("`")
        for page in PAGES
        if page.name != "add_your_paper.md"  # test_guide.py runs these
        for line in re.findall(r"(?:^    |`)(repro [^`\n]+)", page.read_text(), re.M)
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses_and_names_what_exists(line, tmp_path):
    _, name, *arguments = ("2" if word == "N" else word for word in shlex.split(line))
    command = cli.commands[name]
    if not arguments:  # a command that a sentence speaks of
        return
    context = command.make_context(name, arguments)  # raises on an unknown option or choice
    assert isinstance(command, click.Command)
    values = context.params
    if name in ("table", "plan"):
        named = values.get("launcher") or "local"
        launcher = PROFILES.get(named, named)
        overrides = (*values["overrides"], f"launcher={launcher}", f"paths.runs={tmp_path}")
        table = compose_table(values["name"], values["scale"], overrides)
        table.check_rows((values.get("rows") or "").split(",") if values.get("rows") else [])
        if launcher != "local":
            text = scripts(table, {table.store.record(cell.key): cell for cell in table.cells()})
            assert "#SBATCH --array=0-" in text
            accounts = re.findall(r"^#SBATCH --account=(\w+)", text, re.M)
            assert set(accounts) == set(re.findall(r"launcher\.account=(\w+)", line))
    elif name == "sweep" and values["search"] == "grid":
        grid(values["name"], values["scale"], values["overrides"])
    elif name == "sweep":
        space = Space.of(values["name"], values["scale"], values["overrides"])
        space.table(space.example())
    elif name == "explain":
        find(values["cell"], values["scale"], ())


def test_a_profile_that_a_page_has_its_reader_make_is_used_there():
    text = "".join(page.read_text() for page in CLUSTER)
    assert PROFILES
    for profile in PROFILES:
        assert re.search(rf"^    repro .*--launcher {profile}\b", text, re.M), profile


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^    make (\w+)", README, re.M)
    assert set(targets) == {"demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M)


@pytest.mark.parametrize("page", CLUSTER, ids=lambda page: page.name)
def test_pages_about_clusters_name_what_exists(page):
    text = page.read_text()
    for path in re.findall(r"`((?:common|configs|slurm|tests)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    script = (ROOT / "slurm" / "local_cluster.sh").read_text()
    for word in re.findall(r"slurm/local_cluster\.sh ([\w-]+)", text):
        assert re.search(rf"^{word}\) ", script, re.M), word
    for source, target in re.findall(r"^    cp (\S+) (\S+)", text, re.M):
        assert (ROOT / source).exists() and (ROOT / target).parent.is_dir()
    for resources in re.findall(r"`resources: (\{.*?\})`", text):
        values = [f"resources.{key}={value}" for key, value in yaml.safe_load(resources).items()]
        assert compose_table("dsi_pp/continual", "tiny", values).resources.tasks > 1


def test_the_profile_of_a_site_has_the_keys_that_the_operators_are_told_of():
    profile = yaml.safe_load((ROOT / "configs" / "launcher" / "slurm.yaml").read_text())
    text = (ROOT / "slurm" / "README.md").read_text()
    told = {"slack", "min_minutes", "max_minutes", "container", "python", "mounts", "setup", "array_size", "retries"}
    assert told <= set(profile)
    assert all(re.search(rf"`{key}\b", text) for key in told)
    named = re.search(r"A launcher is a file in `configs/launcher`: (.*?)\. ", text, re.S)
    for launcher in re.findall(r"`(\w+)`", named[1]):
        assert (ROOT / "configs" / "launcher" / f"{launcher}.yaml").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)  # a block may be for another file
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_implemented_paper_and_table_is_listed():
    for paper in catalogue.implemented():
        row = next((line for line in README.splitlines() if f"projects/{paper}/README.md" in line), "")
        for table in catalogue.tables(paper):
            assert f"`{table}`" in row, f"{paper}/{table} is not in README"
        idle = {table for table in catalogue.tables(paper) if not [*ROOT.glob(f"reports/{paper}/{table}.*.json")]}
        assert set(re.findall(r"`(\w+)`", row.partition("not run:")[2])) == idle


def test_the_parts_work_as_the_readme_uses_them():
    [block] = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert [note.text for note in names["found"]] == ["Ada lives in Oslo."]


def test_the_diagram_of_the_readme_names_what_exists():
    [diagram] = re.findall(r"^```text\n(.*?)^```", README, re.M | re.S)
    stages = re.findall(r"(?:▶|▼) (\w+) {3,}", diagram)
    assert stages == ["compose", "plan", "launch", "record", "report", "sync"]
    for path in re.findall(r"(?:common|configs|projects|reports)/[\w/]*", diagram):
        assert (ROOT / path).exists(), path


def test_note_memory_does_what_its_readme_says():
    [block] = re.findall(r"^```python\n(.*?)^```", (ROOT / "common/memory/README.md").read_text(), re.M | re.S)
    names: dict = {}
    exec(compile(block, "common/memory/README.md", "exec"), names)
    assert names["found"] == names["again"].entries()[0]
    assert names["found"].text == "Ada lives in Rome."
    assert names["earlier"] == ["Ada lives in Oslo.", "Bo keeps bees."]
    assert names["size"] == 7


def test_microlm_tells_what_its_report_and_logs_say():
    """After new figures: `repro skills` prints the two sentences anew."""
    text = " ".join((ROOT / "common/models/microlm/README.md").read_text().split())
    rows = skill_rows("skills")
    assert targets(rows) in text
    assert tokens_trained(WEIGHTS) in text
    unseen, chance = (row.interval() for row in rows if row.name.startswith("unseen fact"))
    assert unseen[0] < chance[1]


def test_microlm_commands_have_the_steps_of_the_shipped_recipe():
    text = " ".join((ROOT / "common/models/microlm/README.md").read_text().split())
    assert f"--pool pool.safetensors --steps {json.loads((WEIGHTS / 'recipe.json').read_text())['steps']}`" in text


@pytest.mark.parametrize("name", ["skills", "ten_minutes"])
def test_pages_of_skills_show_the_figures_beside_them(name):
    page = (ROOT / "reports" / "microlm" / f"{name}.md").read_text()
    shipped = {row.name: row.share for row in skill_rows("skills")} if name == "ten_minutes" else None
    tables = skills_markdown(skill_rows(name), "", [], shipped)
    assert page[page.index("\n## ") :] == tables[tables.index("\n## ") :]


REPORTS = sorted(path for path in ROOT.glob("reports/*/*.json") if path.parent.name != "microlm")


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_markdown_of_a_report_is_rendered_from_its_result_file(path):
    assert path.with_suffix(".md").read_text() == markdown(read_report(path))


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_report_shows_the_figures_of_its_result_file(path):
    report, page = json.loads(path.read_text()), path.with_suffix(".md").read_text().replace("\\", "")
    units = {metric["id"]: metric["unit"] for metric in report["metrics"]}
    decimals = decimals_of(report)
    for cell in report["cells"]:
        if cell["values"]:
            assert cell["mean"] == pytest.approx(sum(cell["values"]) / cell["n_seeds"])
        figures, shared = (cell["mean"], cell["ci_low"], cell["ci_high"]), decimals[cell["column"], cell["metric"]]
        assert format_value(*figures, units[cell["metric"]], decimals=shared) in page, cell
    for claim in report["claims"]:
        assert re.search(rf"^\| {claim['id']} \|.*\| {claim['status']} \|", page, re.M), claim["id"]


def test_the_page_of_the_retrievers_shows_the_figures_of_its_result_file():
    page = (ROOT / "reports" / "retrievers.md").read_text()
    for row in json.loads((ROOT / "reports" / "retrievers.json").read_text())["rows"]:
        means = [f"{100 * mean:.1f}" for mean, _, _ in row["recall"].values()]
        shown = r"(?: \[[^|]*)? \| ".join(map(re.escape, means))
        assert re.search(rf"^\| {re.escape(row['retriever'])} \| {shown}", page, re.M), row


def skill_rows(name):
    return [Row(**figures) for figures in json.loads((ROOT / "reports" / "microlm" / f"{name}.json").read_text())]


def test_the_readme_fits_a_page_and_each_paper_has_one_row():
    lines = README.splitlines()
    rows = [line for line in lines if line.startswith("| [") and "](projects/" in line]
    assert len(rows) == len(catalogue.implemented())
    assert len(lines) - len(rows) <= 74


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "common" / "guide" / "index.md"], ids=lambda page: page.name
)
def test_pages_that_speak_of_fifty_papers_say_how_many_run(page):
    papers = catalogue.load()
    run = papers.keys() & set(catalogue.implemented())
    assert f"{len(run)} of {len(papers)} run so far" in page.read_text()
    assert ("none yet at paper scale" in page.read_text()) != any(ROOT.glob("reports/*/*.paper.json"))
