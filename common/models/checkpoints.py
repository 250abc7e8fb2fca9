"""Published checkpoints that paper-scale configs name: size, licence, revision, and what they need of memory.

Sources. Dimensions: each model's config.json on the Hugging Face hub, as it stands in the model tables of public code
(litgpt's for Llama, Mistral, Qwen) or in the defaults of transformers (GPT-2, GPT-J). Parameter counts: the hub's count
of the safetensors, or the card; tests hold them equal to the closed forms of `footprint` and to what transformers
builds. Licences: the cards. Revisions: commits of the hub that at least two public repositories pin; None where fewer
do, and then the user's cache decides, as the record of a run shows. What none of these states is named in `unverified`.
"""

from dataclasses import dataclass, replace

from common.experiments.errors import UserError, nearest
from common.models import hub
from common.models.footprint import BYTES, Dtype, Shape


@dataclass(frozen=True)
class Checkpoint:
    """A model on the Hugging Face hub.

    Attributes:
        id: `owner/name`.
        shape: dimensions, from which memory is computed.
        parameters: published count; where the files store a tied matrix twice, it counts once here.
        licence: SPDX identifier, or the publisher's name for it; `unstated` where the card names none.
        gated: whether the hub asks for an account and consent.
        stored: dtype of the weight files.
        revision: commit on the hub; None: whichever the user's cache has.
        pickled: `main` has no safetensors, so this project does not load it as it is.
        unverified: attributes above that no source at hand states.
    """

    id: str
    shape: Shape
    parameters: int
    licence: str
    gated: bool = False
    stored: Dtype = "bfloat16"
    revision: str | None = None
    pickled: bool = False
    unverified: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Of the weights in one format; what a download takes at least."""
        return self.parameters * BYTES[self.stored]

    def cached(self) -> bool:
        """Whether the hub cache of this machine holds it; loads nothing."""
        return hub.cached(self.id)

    def how_to_get(self) -> str:
        """The command that downloads it, and what must come first."""
        consent = f" (gated: first accept the licence at huggingface.co/{self.id}, then hf auth login)"
        command = hub.how_to_get(self.id, self.revision)
        convert = " (pickled weights: take a revision with safetensors, refs/pr/N)" if self.pickled else ""
        return command + (consent if self.gated else "") + convert


def _qwen2(layers: int, width: int, heads: int, kv_heads: int, feed_forward: int, vocabulary: int, tied: bool) -> Shape:
    return Shape("qwen2", layers, width, heads, kv_heads, width // heads, feed_forward, vocabulary, tied)


def _qwen3(layers: int, width: int, heads: int, feed_forward: int, tied: bool) -> Shape:
    return Shape("qwen3", layers, width, heads, 8, 128, feed_forward, 151_936, tied)


def _gpt2(layers: int, width: int, heads: int) -> Shape:
    return Shape("gpt2", layers, width, heads, heads, width // heads, 4 * width, 50_257, True, positions=1024)


def _t5(layers: int, width: int, heads: int, head: int, feed_forward: int, flan: bool = False) -> Shape:
    return Shape("t5", layers, width, heads, heads, head, feed_forward, 32_128, tied=not flan, gated=flan)


_QWEN25 = {
    "0.5B": (_qwen2(24, 896, 14, 2, 4864, 151_936, True), 494_032_768),
    "1.5B": (_qwen2(28, 1536, 12, 2, 8960, 151_936, True), 1_543_714_304),
    "3B": (_qwen2(36, 2048, 16, 2, 11_008, 151_936, True), 3_085_938_688),
    "7B": (_qwen2(28, 3584, 28, 4, 18_944, 152_064, False), 7_615_616_512),
    "14B": (_qwen2(48, 5120, 40, 8, 13_824, 152_064, False), 14_770_033_664),
    "32B": (_qwen2(64, 5120, 40, 8, 27_648, 152_064, False), 32_763_876_352),
}
_QWEN3 = {
    "0.6B": (_qwen3(28, 1024, 16, 3072, True), 596_049_920),
    "1.7B": (_qwen3(28, 2048, 16, 6144, True), 1_720_574_976),
    "4B": (_qwen3(36, 2560, 32, 9728, True), 4_022_468_096),
    "8B": (_qwen3(36, 4096, 32, 12_288, False), 8_190_735_360),
    "14B": (_qwen3(40, 5120, 40, 17_408, False), 14_768_307_200),
    "32B": (_qwen3(64, 5120, 64, 25_600, False), 32_762_123_264),
}
_LLAMA2_7B = Shape("llama", 32, 4096, 32, 32, 128, 11_008, 32_000, False)
_LLAMA2_13B = Shape("llama", 40, 5120, 40, 40, 128, 13_824, 32_000, False)
_LLAMA3_8B = Shape("llama", 32, 4096, 32, 8, 128, 14_336, 128_256, False)
_MISTRAL = Shape("mistral", 32, 4096, 32, 8, 128, 14_336, 32_000, False)
_BERT_BASE = Shape("bert", 12, 768, 12, 12, 64, 3072, 30_522, True, positions=512)
_MINILM = Shape("bert", 6, 384, 12, 12, 32, 1536, 30_522, True, positions=512)
_LFM2_350M = Shape("lfm2", 16, 1024, 16, 8, 64, 4608, 65_536, True, attention_layers=6)
_LFM2_1B = Shape("lfm2", 16, 2048, 32, 8, 64, 8192, 65_536, True, attention_layers=6)

_REVISIONS = {
    "Qwen/Qwen2-7B-Instruct": "f2826a00ceef68f0f2b946d945ecc0477ce4450c",
    "Qwen/Qwen2.5-0.5B-Instruct": "7ae557604adf67be50417f59c2c2f167def9a775",
    "Qwen/Qwen2.5-1.5B-Instruct": "989aa7980e4cf806f80c7fef2b1adb7bc71aa306",
    "Qwen/Qwen2.5-3B-Instruct": "aa8e72537993ba99e69dfaafa59ed015b17504d1",
    "Qwen/Qwen2.5-7B": "d149729398750b98c0af14eb82c78cfe92750796",
    "Qwen/Qwen2.5-7B-Instruct": "a09a35458c702b33eeacc393d103063234e8bc28",
    "Qwen/Qwen2.5-14B-Instruct": "cf98f3b3bbb457ad9e2bb7baf9a0125b6b88caa8",
    "Qwen/Qwen2.5-32B-Instruct": "5ede1c97bbab6ce5cda5812749b4c0bdf79b18dd",
    "Qwen/Qwen3-0.6B": "c1899de289a04d12100db370d81485cdf75e47ca",
    "Qwen/Qwen3-1.7B": "70d244cc86ccca08cf5af4e1e306ecf908b1ad5e",
    "Qwen/Qwen3-4B": "1cfa9a7208912126459214e8b04321603b3df60c",
    "Qwen/Qwen3-8B": "b968826d9c46dd6066d109eabc6255188de91218",
    "Qwen/Qwen3-32B": "9216db5781bf21249d130ec9da846c4624c16137",
    "meta-llama/Llama-2-7b-hf": "01c7f73d771dfac7d292323805ebc428287df4f9",
    "meta-llama/Llama-2-13b-hf": "5c31dfb671ce7cfe2d7bb7c04375e44c55e815b1",
    "meta-llama/Meta-Llama-3-8B": "8cde5ca8380496c9a6cc7ef3a8b46a0372a1d920",
    "meta-llama/Meta-Llama-3-8B-Instruct": "8afb486c1db24fe5011ec46dfbe5b5dccdb575c2",
    "meta-llama/Llama-3.1-8B-Instruct": "0e9e39f249a16976918f6564b8830bc894c89659",
    "mistralai/Mistral-7B-v0.1": "26bca36bde8333b5d7f72e9ed20ccda6a618af24",
    "mistralai/Mistral-7B-Instruct-v0.2": "63a8b081895390a26e140280378bc85ec8bce07a",
    "mistralai/Mistral-7B-Instruct-v0.3": "c170c708c41dac9275d15a8fff4eca08d52bab71",
    "openai-community/gpt2": "607a30d783dfa663caf39e06633721c8d4cfcd7e",
    "openai-community/gpt2-large": "32b71b12589c2f8d625668d2335a01cac3249519",
    "openai-community/gpt2-xl": "15ea56dee5df4983c59b2538573817e1667135e2",
    "distilbert/distilgpt2": "2290a62682d06624634c1f46a6ad5be0f47f38aa",
    "EleutherAI/gpt-j-6b": "47e169305d2e8376be1d31e765533382721b2cc1",
    "google-t5/t5-base": "a9723ea7f1b39c1eae772870f3b547bf6ef7e6c1",
    "google-t5/t5-large": "150ebc2c4b72291e770f58e6057481c8d2ed331a",
    "google/flan-t5-xl": "7d6315df2c2fb742f0f5b556879d730926ca9001",
    "facebook/contriever-msmarco": "abe8c1493371369031bcb1e02acb754cf4e162fa",
    "intfloat/e5-base-v2": "f52bf8ec8c7124536f0efb74aca902b2995e5bcd",
    "sentence-transformers/all-MiniLM-L6-v2": "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    "LiquidAI/LFM2-1.2B": "933cee00d754fb3bfe06c644c0cb95453f2d8bb2",
}

_ALL = [
    *(
        Checkpoint(f"Qwen/Qwen2.5-{size}{kind}", shape, count, "qwen-research" if size == "3B" else "apache-2.0")
        for size, (shape, count) in _QWEN25.items()
        for kind in ("", "-Instruct")
    ),
    *(Checkpoint(f"Qwen/Qwen3-{size}", shape, count, "apache-2.0") for size, (shape, count) in _QWEN3.items()),
    Checkpoint("Qwen/Qwen2-7B-Instruct", _QWEN25["7B"][0], 7_615_616_512, "apache-2.0"),
    # MEM1's policy, a Qwen2.5-7B after PPO
    Checkpoint(
        "Mem-Lab/Qwen2.5-7B-RL-RAG-Q2-EM-Release",
        _QWEN25["7B"][0],
        7_615_616_512,
        "unknown",
        unverified=("licence", "stored"),
    ),
    # Mem-α's memory writer, a Qwen3-4B after GRPO; the licence is that of its code
    Checkpoint("YuWangX/Memalpha-4B", _QWEN3["4B"][0], 4_022_468_096, "apache-2.0", unverified=("licence", "stored")),
    Checkpoint("meta-llama/Llama-2-7b-hf", _LLAMA2_7B, 6_738_415_616, "llama2", gated=True, stored="float16"),
    Checkpoint("meta-llama/Llama-2-13b-hf", _LLAMA2_13B, 13_015_864_320, "llama2", gated=True, stored="float16"),
    Checkpoint("meta-llama/Meta-Llama-3-8B", _LLAMA3_8B, 8_030_261_248, "llama3", gated=True),
    Checkpoint("meta-llama/Meta-Llama-3-8B-Instruct", _LLAMA3_8B, 8_030_261_248, "llama3", gated=True),
    Checkpoint("meta-llama/Llama-3.1-8B", _LLAMA3_8B, 8_030_261_248, "llama3.1", gated=True),
    Checkpoint("meta-llama/Llama-3.1-8B-Instruct", _LLAMA3_8B, 8_030_261_248, "llama3.1", gated=True),
    Checkpoint("mistralai/Mistral-7B-v0.1", replace(_MISTRAL, window=4096), 7_241_732_096, "apache-2.0", gated=True),
    Checkpoint("mistralai/Mistral-7B-Instruct-v0.2", _MISTRAL, 7_241_732_096, "apache-2.0", gated=True),
    Checkpoint(
        "mistralai/Mistral-7B-Instruct-v0.3",
        replace(_MISTRAL, vocabulary=32_768),
        7_248_023_552,
        "apache-2.0",
        gated=True,
    ),
    Checkpoint("openai-community/gpt2", _gpt2(12, 768, 12), 124_439_808, "mit", stored="float32"),
    Checkpoint("openai-community/gpt2-medium", _gpt2(24, 1024, 16), 354_823_168, "mit", stored="float32"),
    Checkpoint("openai-community/gpt2-large", _gpt2(36, 1280, 20), 774_030_080, "mit", stored="float32"),
    Checkpoint("openai-community/gpt2-xl", _gpt2(48, 1600, 25), 1_557_611_200, "mit", stored="float32"),
    Checkpoint("distilbert/distilgpt2", _gpt2(6, 768, 12), 81_912_576, "apache-2.0", stored="float32"),
    Checkpoint(
        "EleutherAI/gpt-j-6b",
        Shape("gptj", 28, 4096, 16, 16, 256, 16_384, 50_400, False),
        6_050_882_784,
        "apache-2.0",
        stored="float32",
        pickled=True,
    ),
    *(
        Checkpoint(f"google-t5/t5-{size}", shape, count, "apache-2.0", stored="float32", unverified=("licence",))
        for size, shape, count in (
            ("small", _t5(6, 512, 8, 64, 2048), 60_506_624),
            ("base", _t5(12, 768, 12, 64, 3072), 222_903_552),
            ("large", _t5(24, 1024, 16, 64, 4096), 737_668_096),
            ("3b", _t5(24, 1024, 32, 128, 16_384), 2_851_598_336),
        )
    ),
    Checkpoint("google/flan-t5-base", _t5(12, 768, 12, 64, 2048, True), 247_577_856, "apache-2.0", stored="float32"),
    Checkpoint("google/flan-t5-large", _t5(24, 1024, 16, 64, 2816, True), 783_150_080, "apache-2.0", stored="float32"),
    Checkpoint("google/flan-t5-xl", _t5(24, 2048, 32, 64, 5120, True), 2_849_757_184, "apache-2.0", stored="float32"),
    # DSI++'s public stand-in for its query generator
    Checkpoint(
        "castorini/doc2query-t5-large-msmarco",
        _t5(24, 1024, 16, 64, 4096),
        737_668_096,
        "unknown",
        stored="float32",
        pickled=True,
        unverified=("licence", "stored", "pickled"),
    ),
    Checkpoint(
        "facebook/contriever",
        _BERT_BASE,
        109_482_240,
        "unstated",
        stored="float32",
        pickled=True,
        unverified=("pickled",),
    ),
    Checkpoint(
        "facebook/contriever-msmarco",
        _BERT_BASE,
        109_482_240,
        "unstated",
        stored="float32",
        pickled=True,
    ),
    Checkpoint("intfloat/e5-base-v2", _BERT_BASE, 109_482_240, "mit", stored="float32"),
    Checkpoint("sentence-transformers/all-MiniLM-L6-v2", _MINILM, 22_713_216, "apache-2.0", stored="float32"),
    Checkpoint("LiquidAI/LFM2-350M", _LFM2_350M, 354_483_968, "lfm1.0"),
    Checkpoint("LiquidAI/LFM2-1.2B", _LFM2_1B, 1_170_340_608, "lfm1.0"),
]
CHECKPOINTS = {found.id: replace(found, revision=_REVISIONS.get(found.id)) for found in _ALL}


def find(name: str) -> Checkpoint:
    """The checkpoint of that id; UserError naming the nearest when it is not registered."""
    if name not in CHECKPOINTS:
        raise UserError(f"unknown checkpoint '{name}'{nearest(name, CHECKPOINTS)}")
    return CHECKPOINTS[name]
