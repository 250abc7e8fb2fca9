"""What WISE's tables edit, as requests: the facts that MicroLM knows by heart, ZsRE, CounterFact, WISE's own archive.

| set | edited | paraphrases | locality | irrelevant x_i |
|---|---|---|---|---|
| facts | people, new answers | wordings taught for other facts, or never | facts of places | other places |
| zsre | `src` to `alt` | `rephrase` | Natural Questions, `loc` | `loc` of another record |
| counterfact | `prompt` to `target_new` | `rephrase_prompt` | `locality_prompt` | that of another record |
| hallucination | `prompt` to `target_new` | none | RedPajama, `locality_prompt` | that of a training record |
| temporal | `prompt` to `target_new` | texts, `ood_rephrase` | Pile, `locality_prompt` | that of a training record |

Other records are those that no edit takes. Of ZsRE and CounterFact no prompt is in two roles, and ZsRE's records whose
`alt` is empty or a true answer are left out. The last two sets are files of the authors' archive, which
`examples/WISE.md` of zjunlp/EasyEdit links, unpacked in the folder `wise` of `REPRO_DATA`. We have no copy of it: the
form of the files is checked, their bytes are not.
"""

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from common.data import counterfact, zsre
from common.editing.requests import EditRequest, Probe
from common.experiments.errors import UserError
from common.models.microlm.facts import Edit, FactSet, KnownFact, draw_edits, fact_set, near
from projects.wise.settings import Data

OPENING_WORDS = 10  # of a text that does not name its subject
FIELDS = {  # of the archive's records
    "edit": ("subject", "prompt", "target_new", "locality_prompt", "locality_ground_truth"),
    "train": ("locality_prompt", "locality_ground_truth"),
}


def requests(data: Data, seed: int, folder: Path | None) -> list[list[EditRequest]]:
    """Blocks of edits, no fact in two; the same arguments give the same.

    Raises:
        UserError: a set with too few records for `edits` and `blocks`.
    """
    made = SETS[data.name](data, seed, folder)
    return [made[start : start + data.edits] for start in range(0, len(made), data.edits)]


def near_probes(data: Data, seed: int) -> list[Probe]:
    """Facts of the edited relations that no edit of any block touches; empty but for `facts`."""
    if data.name != "facts":
        return []
    facts = fact_set()
    left = near(facts, draw_edits(facts, data.edits * data.blocks, seed))
    chosen = random.Random(f"near/{seed}").sample(left, min(data.near, len(left)))
    return [_probe(known) for known in chosen]


def _facts(data: Data, seed: int, folder: Path | None) -> list[EditRequest]:
    facts, total = fact_set(), data.edits * data.blocks
    if total > len(facts.people):
        raise UserError(f"data: {total} edits were asked for, and there are {len(facts.people)} facts of people")
    rng = random.Random(f"probes/{seed}")
    return [_of_fact(rng, facts, edit, data.paraphrases) for edit in draw_edits(facts, total, seed)]


def _of_fact(rng: random.Random, facts: FactSet, edit: Edit, paraphrases: int) -> EditRequest:
    known = edit.known
    others = [*known.reworded, *known.unseen]
    return EditRequest(
        edit.prompt,
        edit.target,
        known.fact.subject,
        tuple(rng.sample(others, min(paraphrases, len(others)))),
        (_probe(rng.choice(facts.locality)),),
        _probe(rng.choice(facts.irrelevant)),
    )


def _probe(known: KnownFact) -> Probe:
    return Probe(known.taught[0], known.target)


def _zsre(data: Data, seed: int, folder: Path | None) -> list[EditRequest]:
    def record(row: zsre.Edit) -> EditRequest:
        locality = Probe(row.locality_question, f" {row.locality_answer.strip()}")
        return EditRequest(row.question, f" {row.alt.strip()}", row.subject, (row.rephrase,), (locality,))

    changes = [row for row in zsre.load(folder) if row.alt.strip() not in ("", *row.answers)]
    return _drawn([record(row) for row in changes], data, seed)


def _counterfact(data: Data, seed: int, folder: Path | None) -> list[EditRequest]:
    def record(row: counterfact.Edit) -> EditRequest:
        locality = Probe(row.locality_prompt, f" {row.locality_ground_truth.strip()}")
        target, truth = f" {row.target_new.strip()}", f" {row.ground_truth.strip()}"
        return EditRequest(row.prompt, target, row.subject, (row.rephrase_prompt,), (locality,), truth=truth)

    return _drawn([record(row) for row in counterfact.load(folder)], data, seed)


def _drawn(records: Iterable[EditRequest], data: Data, seed: int) -> list[EditRequest]:
    """Edits drawn at random, each with the locality probe of a record left out as its x_i; no prompt in two roles."""
    usable = _distinct(records)
    total = data.edits * data.blocks
    if 2 * total > len(usable):
        raise UserError(f"data: {total} edits take {2 * total} records of {data.name}, which has {len(usable)}")
    drawn = random.Random(f"{data.name}/{seed}").sample(usable, 2 * total)
    pairs = zip(drawn[:total], drawn[total:], strict=True)
    return [replace(record, irrelevant=other.locality[0]) for record, other in pairs]


def _distinct(records: Iterable[EditRequest]) -> list[EditRequest]:
    """The last of records that share a prompt, a paraphrase or a locality prompt; no locality prompt can be changed.

    Left out as well: a paraphrase that is the prompt, and a prompt that spells its subject otherwise, which ROME and
    MEMIT refuse.
    """
    records = {r.prompt: r for r in records if r.subject in r.prompt and r.prompt not in r.paraphrases}.values()
    records = {r.paraphrases: r for r in records}.values()
    changed = {prompt for r in records for prompt in (r.prompt, *r.paraphrases)}
    return list({r.locality[0].prompt: r for r in records if r.locality[0].prompt not in changed}.values())


def _archive(data: Data, seed: int, folder: Path | None) -> list[EditRequest]:
    edited, others = _records(data.name, "edit", folder), _records(data.name, "train", folder)
    total = data.edits * data.blocks
    if total > len(edited):
        raise UserError(f"data: {total} edits were asked for, and {data.name} has {len(edited)} records")
    rng = random.Random(f"{data.name}/{seed}")
    return [_of_record(row, rng.choice(others)) for row in rng.sample(edited, total)]


def _of_record(row: dict[str, str], other: dict[str, str]) -> EditRequest:
    return EditRequest(
        row["prompt"],
        f" {row['target_new'].strip()}",
        row["subject"],
        locality=(_elsewhere(row),),
        texts=(opening(row["ood_rephrase"], row["subject"]),) if "ood_rephrase" in row else (),
        irrelevant=_elsewhere(other),
    )


def _elsewhere(row: dict[str, str]) -> Probe:
    return Probe(row["locality_prompt"], f" {row['locality_ground_truth'].strip()}")


def opening(text: str, subject: str) -> Probe:
    """Running text, cut after the word in which its first mention of the subject ends, or else after ten words."""
    words = text.split()
    start = text.find(subject)
    cut = len(text[: start + len(subject)].split()) if start >= 0 else OPENING_WORDS
    cut = min(cut, len(words) - 1)
    return Probe(" ".join(words[:cut]), " " + " ".join(words[cut:]))


def _records(name: str, part: str, folder: Path | None) -> list[dict[str, str]]:
    path = Path("wise", name, f"{name}-{part}.json")
    if folder is None or not (folder / path).is_file():
        raise UserError(
            f"{path} is not under REPRO_DATA ({folder or 'not set'}): it is part of the archive that "
            "https://github.com/zjunlp/EasyEdit/blob/main/examples/WISE.md links"
        )
    try:
        rows: list[dict[str, str]] = json.loads((folder / path).read_text(encoding="utf-8"))
        fields = FIELDS[part] if name == "hallucination" or part == "train" else (*FIELDS[part], "ood_rephrase")
        lacking = {field for row in rows for field in fields if not isinstance(row.get(field), str)}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{folder / path} is no list of records: {error}") from None
    if lacking or not rows:
        raise UserError(f"{folder / path}: records without {', '.join(sorted(lacking)) or 'any content'}")
    return list({tuple(row.get(field) for field in ("prompt", *fields)): row for row in rows}.values())


SETS: dict[str, Callable[[Data, int, Path | None], list[EditRequest]]] = {
    "facts": _facts,
    "zsre": _zsre,
    "counterfact": _counterfact,
    "hallucination": _archive,
    "temporal": _archive,
}
