"""The `repro` command. Bodies live in their modules and are imported when called: `repro --help` stays instant."""

import io
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from errno import EACCES, EROFS
from pathlib import Path
from typing import Any

import click

from common.experiments.catalogue import SCALES
from common.experiments.errors import UserError, nearest

OVERRIDES = "Overrides are Hydra's: settings.lr=0.01, rows.NAME.settings.lr=0.01, tracking=off, paths.runs=DIR."


class _Group(click.Group):
    """A group whose unknown commands name the nearest known one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise UserError(f"unknown command '{args[0]}'{nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of this file: the order of a first hour


class _Choice(click.Choice[str]):
    """A choice whose mistakes name the nearest."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        near = get_close_matches(value, self.choices, n=1)
        known = super().get_invalid_choice_message(value, ctx).rstrip(".")
        return f"{known}; did you mean '{near[0]}'?" if near else known


class _Whole(click.IntRange):
    """A whole number between bounds, in these words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            bounds = f"{self.min} or more" if self.max is None else f"{self.min} to {self.max}"
            self.fail(f"give a whole number, {bounds}, not '{value}'", param, ctx)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="memory-reproductions", prog_name="repro")
def cli() -> None:
    """Reproduce tables of papers on memory, each with one command and an honest verdict.

    \b
    First steps:
      repro list                         papers, tables, scales, last verdicts
      repro plan dsi_pp/continual        what a table would compute, and how long
      repro table dsi_pp/continual       compute what is missing, print and report
      repro explain dsi_pp/continual/cl_all/0      where one cell's values come from

    Results are files under runs/ and reports/. Interrupt at any time: the same command goes on
    where it stopped and computes nothing twice.

    \b
    Completion for your shell:  eval "$(_REPRO_COMPLETE=bash_source repro)"     (or zsh_source, fish_source)
    """


def _complete_table(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from common.experiments import catalogue

    names = [f"{paper}/{table}" for paper in catalogue.implemented() for table in catalogue.tables(paper)]
    return [name for name in names if name.startswith(incomplete)]


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_name = click.argument("name", metavar="PAPER/TABLE", shell_complete=_complete_table)
_scale = click.option(
    "--scale",
    type=_Choice(SCALES),
    default="tiny",
    show_default=True,
    help="tiny: offline, minutes; small: real data; paper: the paper's own.",
)
_seeds = click.option("--seeds", type=_Whole(min=1), metavar="N", help="Seeds 0 … N-1.  [default: the table's]")
_rows = click.option("--rows", metavar="A,B,…", help="These rows only; a table still shows all that exist.")
_workers = click.option(
    "--workers", type=_Whole(min=1), metavar="N", help="Cells at a time.  [default: as many as fit]"
)
_launcher = click.option(
    "--launcher", metavar="NAME", help="Where cells run: a file of configs/launcher.  [default: local]"
)
_wait = click.option("--wait", is_flag=True, help="On a cluster: follow the jobs to their end, then report.")
_dry_run = click.option("--dry-run", is_flag=True, help="On a cluster: print the scripts, submit nothing.")
_keep_stale = click.option(
    "--keep-stale", is_flag=True, help="Use results of older code instead of computing them again."
)
_overrides = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]…")


@cli.command("list", short_help="Papers, tables, scales, last verdicts.")
@click.option("--all", "everything", is_flag=True, help="Also papers that are not implemented yet.")
@click.option("--code", is_flag=True, help="Mark reports of other code than the present: new cells for `repro table`.")
def list_(everything: bool, code: bool) -> None:
    """Papers, their tables and scales, and the last verdicts."""
    from common.experiments.listing import show

    show(everything, code)


@cli.command(epilog=OVERRIDES, short_help="Compute, print and report a table.")
@_options(_name, _overrides, _scale, _seeds, _rows, _workers, _launcher, _keep_stale, _wait, _dry_run)
def table(
    name: str,
    overrides: tuple[str, ...],
    scale: str,
    seeds: int | None,
    rows: str | None,
    workers: int | None,
    launcher: str | None,
    keep_stale: bool,
    wait: bool,
    dry_run: bool,
) -> None:
    """Reproduce a table: compute the missing cells, print, report, mirror to MLflow.

    With a launcher for clusters (--launcher slurm) the missing cells become job arrays and the command returns at once;
    the same command later reports, or submits again what was lost.
    """
    from common.experiments.commands import Following, run_table

    chosen = _engine(overrides, workers, launcher)
    sys.exit(run_table(name, scale, chosen, seeds, _split(rows), keep_stale, Following(wait, dry_run)))


@cli.command(epilog=OVERRIDES, short_help="What a table would compute and cost.")
@_options(_name, _overrides, _scale, _seeds, _rows)
def plan(name: str, overrides: tuple[str, ...], scale: str, seeds: int | None, rows: str | None) -> None:
    """Show what `table` would compute: cells, time, GPU hours, bytes to download. Starts nothing."""
    from common.experiments.planning import show

    show(name, scale, overrides, seeds, _split(rows))


@cli.command(
    short_help="Grid or search over settings, on validation seeds.",
    epilog="Each KEY takes a list, settings.lr=0.01,0.003, or a range, 'settings.depth=range(1,4)'. A search also "
    "takes 'settings.p=interval(0,1)', 'settings.width=int(interval(8,64))', 'settings.lr=tag(log,interval(1e-4,1))'.",
)
@_options(_name, _overrides, _scale, _rows, _workers, _launcher, _wait, _dry_run)
@click.option(
    "--seeds", type=_Whole(min=1), default=3, show_default=True, metavar="N", help="Validation seeds, from 1000 on."
)
@click.option(
    "--search",
    type=_Choice(["grid", "random", "tpe"]),
    default="grid",
    show_default=True,
    help="All points, points drawn at random, or by Optuna's TPE.",
)
@click.option("--trials", type=_Whole(min=1), metavar="N", help="Points to draw for each row and column.")
@click.option("--prune", is_flag=True, help="Stop points whose logged validation metric is below the median so far.")
def sweep(
    name: str,
    overrides: tuple[str, ...],
    scale: str,
    rows: str | None,
    workers: int | None,
    launcher: str | None,
    seeds: int,
    search: str,
    trials: int | None,
    prune: bool,
    wait: bool,
    dry_run: bool,
) -> None:
    """Points of a space of settings, on seeds of their own; sorted by the table's validation metric, the best marked.

    A search draws --trials points instead of taking all, goes on where it was stopped, and runs what it has chosen at
    the seeds of the table. On a cluster it wants --wait, or the same command again whenever trials have ended.
    """
    from common.experiments.commands import Following
    from common.experiments.sweep import run_sweep

    chosen, following = _engine(overrides, workers, launcher), Following(wait, dry_run)
    if search == "grid":
        if trials is not None or prune:
            raise UserError("--trials and --prune are for drawn points: add --search random, or --search tpe")
        sys.exit(run_sweep(name, scale, chosen, seeds, _split(rows), following))
    if trials is None:
        raise UserError(f"--search {search} wants a number of points to draw: add --trials N")

    from common.experiments.search import run_search
    from common.experiments.trials import Search

    sys.exit(run_search(name, scale, chosen, Search(search, trials, seeds, prune), _split(rows), following))


@cli.command(short_help="Cells by state.")
@click.argument("name", metavar="[PAPER[/TABLE]]", required=False)
def status(name: str | None) -> None:
    """Cells of every table that was started, by state, with jobs and last words of those that are not done."""
    from common.experiments.listing import status

    status(name)


_CELLS = "NAME is a PAPER, a PAPER/TABLE, a cell PAPER/TABLE/ROW[/COLUMN]/SEED, or a key that `repro status` shows."


@cli.command(short_help="End jobs on a cluster.", epilog=_CELLS)
@click.argument("name")
def cancel(name: str) -> None:
    """End the jobs of all cells under NAME; finished cells stay, `repro table` or `repro retry` submits the others."""
    from common.experiments.control import cancel

    cancel(name)


@cli.command(short_help="Submit failed jobs again.", epilog=_CELLS)
@click.argument("name")
@click.option("--minutes", type=click.FloatRange(min=1), metavar="N", help="Another time limit.")
@click.option("--memory-gb", type=click.FloatRange(min=0.01), metavar="N", help="Another allocation of memory.")
def retry(name: str, minutes: float | None, memory_gb: float | None) -> None:
    """Submit cells under NAME again whose jobs failed, timed out, were cancelled or lost: same code, same settings."""
    from common.experiments.control import retry

    retry(name, minutes, memory_gb)


@cli.command(short_help="Output of a cell.", epilog=_CELLS)
@click.argument("name", metavar="CELL")
@click.option("--lines", "-n", type=_Whole(min=1), default=40, show_default=True, help="Of each log.")
def logs(name: str, lines: int) -> None:
    """The end of a cell's log, of its traceback and of its job's output, with their places."""
    from common.experiments.control import logs

    logs(name, lines)


@cli.command(short_help="Where one cell comes from.")
@click.argument("cell", metavar="CELL")
@_options(_overrides, _scale)
def explain(cell: str, overrides: tuple[str, ...], scale: str) -> None:
    """One cell: config, source of each value, commit, command, published figures.

    CELL is PAPER/TABLE/ROW/SEED, PAPER/TABLE/ROW/COLUMN/SEED, or the key of a recorded cell.
    """
    from common.experiments.explain import show

    show(cell, scale, overrides)


@cli.command(short_help="Two result sets, cell by cell.")
@click.argument("a")
@click.argument("b")
def diff(a: str, b: str) -> None:
    """Two result sets, cell by cell, with the difference of code and configuration.

    A and B are report files (….json), tables (PAPER/TABLE.SCALE, as reported now), or tables at a commit
    (COMMIT:PAPER/TABLE.SCALE), for example:

        repro diff HEAD~1:dsi_pp/continual.tiny dsi_pp/continual.tiny
    """
    from common.experiments.difference import show

    show(a, b)


@cli.command(short_help="What can run here.")
def doctor() -> None:
    """What can run here at which scale, and the command that supplies what is missing."""
    from common.experiments.doctor import show

    show()


@cli.command(short_help="Models and data for offline nodes.", epilog=OVERRIDES)
@_options(_name, _overrides, _scale)
def fetch(name: str, overrides: tuple[str, ...], scale: str) -> None:
    """Download what a table needs and this machine lacks, before its jobs run on nodes without a network."""
    from common.experiments.fetch import fetch

    fetch(name, scale, overrides)


@cli.command(short_help="A package for a new paper.")
@click.argument("slug")
def new(slug: str) -> None:
    """Make a package for a paper, whose tiny table runs at once, with its tests."""
    from common.experiments.new import create

    for path in create(slug):
        click.echo(f"wrote {os.path.relpath(path)}")
    click.echo(f"\nnext: repro table {slug}/main      then: python -m pytest tests/projects/{slug}")


@cli.command(short_help="A report as CSV, LaTeX, Markdown, or a log.")
@_options(_name, _scale)
@click.option(
    "--format",
    "form",
    type=_Choice(["csv", "latex", "markdown", "lm-eval", "inspect"]),
    required=True,
    help="lm-eval: in the form of lm-evaluation-harness' results; inspect: of a log of Inspect.",
)
@click.option("--row", metavar="NAME", help="Of the two logs, which hold one row.")
@click.option("--metrics", metavar="A,B,…", help="These, in one table.  [default: all; latex, markdown: a table each]")
@click.option("-o", "out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="[default: print]")
def export(name: str, scale: str, form: str, row: str | None, metrics: str | None, out: Path | None) -> None:
    """A reported table in the format of another tool; csv has every seed's value, unrounded.

    In latex and markdown the paper's figures stand beside ours. --metrics are names of the table's config, as in csv.
    Which file is exported, with which seeds and of which commit, is said on standard error.
    """
    from common.experiments.difference import find
    from common.experiments.export import export, origin
    from common.files import write_atomically

    path, report = find(f"{name}.{scale}")
    text = export(report, form, row, _split(metrics, "--metrics"))
    if out is not None:
        write_atomically(out, text)
    click.echo(origin(path, report), err=True)
    if out is None:
        click.echo(text, nl=False)


@cli.command(short_help="Write reports again.")
@click.argument("name", metavar="[PAPER/TABLE]", required=False)
@_options(_overrides, _scale, _seeds)
def report(name: str | None, overrides: tuple[str, ...], scale: str, seeds: int | None) -> None:
    """Write the report of one table again, or without a name all of them, and the pages of the site.

    First tables with records here are reported from them. Then the values of each report in reports/, with records or
    without, are judged by the present expected.yaml of its paper, and it is rendered as Markdown and plots. A report of
    other rows, columns or metrics than its table has now keeps its verdicts, and is named. What is up to date stays.
    """
    from common.experiments.commands import rebuild_reports

    rebuild_reports(name, scale, overrides, seeds)


@cli.command(short_help="What later reports are compared with.")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also where the last release has that name.")
def release(name: str, force: bool) -> None:
    """Record the reports as they stand under NAME, for the site's page of changes (reports/changes.html)."""
    from common.experiments.commands import record_release

    record_release(name, force)


@cli.command(short_help="What MicroLM can do.")
@click.option("--model", metavar="NAME", help="A folder or hub id.  [default: the shipped weights]")
@click.option("--items", type=_Whole(min=2), default=60, show_default=True, help="Items of each skill.")
@click.option("--seed", help="Of the test worlds.  [default: fresh]")
@click.option("--facts", is_flag=True, help="Recall of the variant that knows facts by heart, instead.")
@click.option("--write", type=click.Path(path_type=Path), metavar="FILE.md", help="Also write a page.")
def skills(model: str | None, items: int, seed: str | None, facts: bool, write: Path | None) -> None:
    """Measure MicroLM's skills on worlds that no training saw: reading by passages and hops, notes, tools, controls."""
    from common.experiments.microlm import show_facts, show_skills

    if facts and seed is not None:
        raise UserError("--seed is of the test worlds; --facts asks for the facts that the weights were taught")
    if facts:
        show_facts(model, items, write)
    else:
        show_skills(model, items, "fresh" if seed is None else seed, write)


@cli.command(short_help="What the retrievers find.")
@click.argument("sets", nargs=-1, metavar="[SET]…")
@click.option("--passages", type=_Whole(min=1), metavar="N", help="Of a corpus at most.  [default: all]")
@click.option("--write", type=click.Path(path_type=Path), metavar="FILE.md", help="Also write a page.")
def recall(sets: tuple[str, ...], passages: int | None, write: Path | None) -> None:
    """Recall@k of BM25, dense and hybrid retrieval on real questions whose evidence is known.

    SET is musique, hotpotqa, 2wikimultihopqa, 2wikimultihopqa_cloze or locomo; without one, all of them.
    """
    from common.experiments.recall import show_recall

    show_recall(sets, passages, write)


@cli.command("train-microlm", short_help="Train MicroLM from nothing.")
@click.option("--out", type=click.Path(path_type=Path), default="runs/microlm", show_default=True, help="Folder.")
@click.option("--minutes", type=click.FloatRange(min=0.1), help="As many steps as fit.  [default: 10]")
@click.option("--steps", type=_Whole(min=1), help="Instead of --minutes.")
@click.option("--device", type=_Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--width", type=int, default=128, show_default=True, help="Hidden size, a multiple of 32.")
@click.option("--layers", type=_Whole(min=2), default=8, show_default=True)
@click.option("--start", type=click.Path(path_type=Path), help="Weights to go on from, instead of fresh ones.")
@click.option(
    "--schedule",
    type=_Choice(["quick", "base", "refine"]),
    help="Stages of training; refine needs --start.  [default: quick; on a GPU or with --pool base]",
)
@click.option("--pool", type=click.Path(path_type=Path), help="Conversations drawn ahead by `repro draw-microlm`.")
@click.option("--processes", type=_Whole(min=1), help="Several take a core each.  [default: 2, on a GPU 1]")
def train_microlm(
    out: Path,
    minutes: float | None,
    steps: int | None,
    device: str,
    width: int,
    layers: int,
    start: Path | None,
    schedule: str | None,
    pool: Path | None,
    processes: int | None,
) -> None:
    """Train the small language model of the tiny tables; the same command goes on after an interruption."""
    from common.experiments.microlm import train_base

    train_base(out, minutes, steps, device, width, layers, start, schedule, pool, processes)


@cli.command("train-facts", short_help="Train MicroLM's fact-bearing variant.")
@click.option("--out", type=click.Path(path_type=Path), default="runs/facts", show_default=True, help="Folder.")
@click.option("--people", type=_Whole(min=2, max=2000), default=320, show_default=True, help="Five facts each.")
@click.option("--rounds", type=_Whole(min=1), default=20, show_default=True, help="Times over all prompts.")
@click.option("--device", type=_Choice(["cpu", "cuda"]), default="cpu", show_default=True)
def train_facts(out: Path, people: int, rounds: int, device: str) -> None:
    """Train the variant that knows a closed set of facts by heart, for model editing, from nothing."""
    from common.experiments.microlm import train_fact_model

    train_fact_model(out, people, rounds, device)


@cli.command("draw-microlm", short_help="Conversations for a GPU run.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--millions", type=click.FloatRange(min=0.1), default=47.0, show_default=True, help="Of tokens.")
@click.option("--seed", type=int, default=0, show_default=True)
def draw_microlm(path: Path, millions: float, seed: int) -> None:
    """Draw training conversations into a file: a GPU trains faster than a CPU draws them."""
    from common.experiments.microlm import draw_conversations

    draw_conversations(path, millions, seed)


@cli.command(short_help="Cached answers and vectors.")
@click.option("--clear", type=_Choice(["responses", "embeddings", "all"]), help="Drop these.")
@click.option("--model", metavar="NAME", help="With --clear: of this model alone.")
def cache(clear: str | None, model: str | None) -> None:
    """Answers of language models and vectors of encoders that are kept on disk: where, how many, of which model."""
    from common.experiments import caches

    if clear is not None:
        caches.clear(clear, model)
    elif model is not None:
        raise UserError("--model says what to drop: add --clear responses or --clear embeddings")
    else:
        caches.show()


@cli.command(short_help="Mirror to MLflow.")
@click.option("--uri", help="MLflow tracking URI.  [default: MLFLOW_TRACKING_URI, else runs/mlflow.db]")
def sync(uri: str | None) -> None:
    """Mirror every recorded cell to MLflow; repeat at will."""
    from common.experiments.commands import sync_all

    sync_all(uri)


def _engine(overrides: tuple[str, ...], workers: int | None, launcher: str | None) -> tuple[str, ...]:
    """`--launcher` and `--workers` as the overrides they stand for."""
    chosen = [f"launcher={launcher}"] if launcher else []
    return (*overrides, *chosen, *([f"launcher.workers={workers}"] if workers else []))


def _split(given: str | None, option: str = "--rows") -> list[str] | None:
    """Names of `--rows` or `--metrics`, each once; None where the option is not given."""
    if given is None:
        return None
    names = list(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    if not names:
        raise UserError(f"{option} names none; leave it out for all of them")
    return names


def main() -> None:
    """Run `repro`; a user's mistake or a missing thing is one line on standard error and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows `?` for `—`
    if not (Path(__file__).parents[2] / "configs").is_dir():
        _stop("tables are no part of an installed package: clone the repository, there `pip install -e .`", 2)
    try:
        cli.main(prog_name="repro", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as help_wanted:
        click.echo(help_wanted.ctx.get_help() if help_wanted.ctx else "")
    except UserError as error:
        _stop(str(error), 2)
    except click.NoSuchOption as error:
        near = nearest(error.option_name, error.possibilities) if error.possibilities else ""
        _stop(f"unknown option '{error.option_name}'{near}", 2)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        _stop(" ".join(error.format_message().split()), 2)
    except (click.Abort, KeyboardInterrupt):
        _stop("interrupted; the same command goes on where it stopped", 130)
    except BrokenPipeError:  # `repro list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that cannot be written
        place = f": {_place(error.filename)}" if isinstance(error.filename, str) else ""
        elsewhere = "; REPRO_RUNS and REPRO_REPORTS name other folders" if error.errno in (EACCES, EROFS) else ""
        _stop(f"{error.strerror or error}{place}{elsewhere}; nothing recorded was lost", 2)


def _place(filename: str) -> str:
    """A file in full, by the name it would get (see `common.files.replacing`), and the variable of its folder."""
    import socket

    path = Path(filename).absolute()
    partial = f".{socket.gethostname()}.{os.getpid()}."
    if partial in path.name:
        path = path.with_name(path.name.split(partial)[0].removeprefix("."))
    for variable in ("REPRO_RUNS", "REPRO_REPORTS"):
        if (folder := os.environ.get(variable)) and path.is_relative_to(Path(__file__).parents[2] / folder):
            return f"{path} ({variable} is {folder})"
    return str(path)


def _stop(message: str, code: int) -> None:
    click.echo(f"repro: {message}", err=True)
    sys.exit(code)
