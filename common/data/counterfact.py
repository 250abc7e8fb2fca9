"""CounterFact (Meng et al., NeurIPS 2022; arXiv:2202.05262): counterfactual edits, flat form, and facts GPT-2 XL knows.

- `load`: 21,919 edits in three parts (`edit` 10,000, `train` 10,000, `val` 1,919), the split of editing toolkits;
  `case_id` 0..21918 occurs once over the three. One paraphrase and one neighbourhood prompt each.
- `load_known`: 1,209 prompts whose attribute GPT-2 XL completes correctly (causal tracing).

Traps: one neighbourhood prompt per record against about ten in the nested release: locality varies more, do not
compare it with published figures. ROME takes the first 7,500 (GPT-2 XL) or 2,000 `case_id`s: filter to match. Scores
compare P(new) > P(true): both targets need a leading space in GPT-style tokenisers.
Licence: MIT (ROME); flat files Apache-2.0.
"""

from dataclasses import dataclass
from pathlib import Path

from common.data.registry import DataFile, Dataset, pick, read_json

DATASET = Dataset(
    name="counterfact",
    title="CounterFact (flat form) and known facts",
    source="arXiv:2202.05262, kmeng01/rome; copies of Jometeorie/KnowledgeSpread and MaxLEAF3824/gpt_re",
    revision="Jometeorie/KnowledgeSpread 51d74026; MaxLEAF3824/gpt_re a0134700",
    licence="MIT (ROME); flat files Apache-2.0",
    non_commercial=False,
    files=(
        DataFile(
            "counterfact-edit.json.gz",
            "977d13de2e874aa3050ab433c6565c594e2e4b4d42bc85b6ace0126c590a6bed",
            rows=10000,
            split="edit",
        ),
        DataFile(
            "counterfact-train.json.gz",
            "6e7cb8aad04489d6deeac5a44fe7adf4eda0c5c3cfd9d16843394e606ea590f5",
            rows=10000,
            split="train",
        ),
        DataFile(
            "counterfact-val.json",
            "42b44645471020a9419d183deb9e113e82941380046861770ea0083dabd13982",
            rows=1919,
            split="val",
        ),
        DataFile(
            "known_1000.json",
            "685ed2a0c3e8323921ea8a945b237cfe75e1f4948b9dda7a92aa6c2401f1d9df",
            rows=1209,
            split="known facts",
        ),
    ),
    splits={"edit": 10000, "train": 10000, "val": 1919},
    papers=("wise",),
    canonical="https://rome.baulab.info/data/dsets/counterfact.json (nested form); GitHub kmeng01/rome",
    bytes_full=45_108_470,
)

SPLITS = {
    "edit": "counterfact-edit.json.gz",
    "train": "counterfact-train.json.gz",
    "val": "counterfact-val.json",
}


@dataclass(frozen=True)
class Edit:
    """One edit: make `prompt` continue with `target_new` instead of `ground_truth`.

    Attributes:
        rephrase_prompt: a paraphrase that should change too.
        locality_prompt, locality_ground_truth: a neighbour that should not change.
    """

    case_id: int
    prompt: str
    subject: str
    ground_truth: str
    target_new: str
    rephrase_prompt: str
    locality_prompt: str
    locality_ground_truth: str


@dataclass(frozen=True)
class KnownFact:
    """A fact GPT-2 XL completes; `template` has `{}` for the subject, `prediction` is the model's continuation."""

    known_id: int
    subject: str
    attribute: str
    template: str
    prompt: str
    prediction: str
    relation_id: str


def load(data: Path | None, split: str = "edit") -> list[Edit]:
    """Edits of one part, in file order. Errors: `registry.find`; UserError for an unknown split."""
    return [Edit(**row) for row in read_json(DATASET, pick("split of counterfact", split, SPLITS), data)]


def load_known(data: Path | None) -> list[KnownFact]:
    """The 1,209 known facts, in file order. Errors: `registry.find`."""
    return [KnownFact(**row) for row in read_json(DATASET, "known_1000.json", data)]
