"""Prompts of writer, reader and judges, and the forms of calls: compact words, or JSON tool calls.

Both forms end in the same `Call`s and the same executor. Compact is for models of a closed lexicon, which are taught
it; JSON is for models that follow instructions, worded by us after the paper's prompts (README, Differences).
"""

import json
import re
from collections.abc import Sequence

from common.models.language_model import Message
from projects.mem_alpha.method import LISTS, Call, Dialect, Evidence, Memory
from projects.mem_alpha.settings import STORES

DONE = "done"  # a turn without calls

# --- compact: insert semantic Balman employer Dertex ; update core lamps ropes ; delete episodic 3 ; ----------------

END = ";"
WORDS = (
    *("insert", "update", "delete", "core", "semantic", "episodic", "chunk", "question", "text", "unknown", "memory"),
    *("empty", "is", "nothing", "yet", "here", DONE, END, ".", "?", "..."),
)


def compact_writer(memory: Memory, chunk: str, shown: int) -> list[Message]:
    """What the writer reads for a chunk: `core ... ; semantic 3 ... ; episodic ; chunk ...`, numbers for ids."""
    parts = [f"core {memory.core}".rstrip()]
    for store in LISTS:
        newest = memory.entries(store)[-shown:] if shown else []
        parts.append(" ; ".join([store, *(f"{entry.id[1:]} {entry.text}" for entry in newest)]))
    return [{"role": "user", "content": f"{' ; '.join(parts)} ; chunk {chunk}"}]


def compact(call: Call) -> str:
    """A call as words, as `compact_parse` reads it back."""
    parts = (call.tool, call.store, call.id.removeprefix("n"), call.content, END)
    return " ".join(part for part in parts if part)


def compact_parse(text: str) -> list[Call]:
    """Calls end in `;`; what stands after the last one, or has neither tool nor store, is a call that fails."""
    if text.split() in ([], [DONE]):
        return []
    *whole, rest = text.split(END)
    calls = [_compact_call(part.split()) for part in whole]
    return [*calls, Call("")] if rest.strip() else calls


def _compact_call(words: Sequence[str]) -> Call:
    if len(words) < 2:
        return Call("")
    tool, store, *rest = words
    id = ""
    if tool != "insert" and store != "core" and rest and rest[0].isdecimal():
        id = f"n{rest.pop(0)}"
    return Call(tool, store, " ".join(rest), id)


def compact_reader(evidence: Evidence, question: str) -> list[Message]:
    """What the reader reads: passages, or core and entries, each under the name of its store; the question last."""
    if evidence.passages:
        parts = [f"text {passage}" for passage in evidence.passages]
    else:
        parts = [f"core {evidence.core}".rstrip()]
        parts += [f"semantic {text}" for text in evidence.semantic]
        parts += [f"episodic {text}" for text in evidence.episodic]
    return [{"role": "user", "content": f"{' ; '.join(parts)} ; question {question}"}]


# --- JSON -----------------------------------------------------------------------------------------------------------

SYSTEM = """You keep the memory of an assistant that reads a long stream chunk by chunk. The memory has these parts.
{parts}
You are asked once for each chunk. Answer with all tool calls for the chunk, each in \
<tool_call></tool_call>, or with Done where nothing is worth keeping.

Tools, as JSON schemas:
{tools}

Memory now:
{now}"""  # ours, after the prompts of the released code

PARTS = {
    "core": "core_memory: one text of at most {core} tokens, always in view; update it as a whole.",
    "semantic": "semantic_memory: a list of facts and labelled samples without a time; you see its newest entries.",
    "episodic": "episodic_memory: a list of events with their time; you see its newest entries.",
}

UNIVERSAL = """Memorise the following chunk.
{kept}
Write less than {budget} tokens.

<chunk>
{chunk}
</chunk>"""  # ours, after the one instruction that the released code has for all data sets

KEPT = {
    "core": "core_memory: keep an understanding of the user, or a running summary of what is read, or, for samples "
    "with labels, rules from label to meaning.",
    "semantic": "semantic_memory: facts and labelled samples.",
    "episodic": "episodic_memory: what user or assistant did, with its time.",
}

READER = """You answer questions from a memory of what was read before. Be concise.
Core memory: {core}
Semantic memory:
{semantic}
Episodic memory:
{episodic}"""

PASSAGES = """You answer questions from a text. Be concise.
{passages}"""

ASKED = {
    "ar": "",
    "ttl": "The rules of the labels may stand in core memory. Give the label as \\boxed{label}.\n",
    "lru": "Core memory holds the summary.\n",
}  # before the question; part of what is searched for, as in the released code

JUDGE = {
    "core": "It is invalid only where it speaks of core memory itself or is a placeholder.",
    "semantic": "It is valid where it holds information, a definition, a procedure or a fact.",
    "episodic": "It is valid where it describes an event, with its time and its context.",
}
JUDGED = """Decide whether this text belongs into the {store} memory of an assistant. {rule}
Reply with JSON: {{"VALID": true or false, "ISSUES": [texts], "EXPLANATION": text}}.

<text>
{content}
</text>"""

_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_TOOLS = {"new_memory_insert": "insert", "memory_update": "update", "memory_delete": "delete"}


def tools(stores: Sequence[str]) -> list[dict[str, object]]:
    """JSON schemas of the tools for these stores; where there is no list, none inserts, and none takes an id."""
    text = {"type": "string"}
    any_store = {"type": "string", "enum": [f"{store}_memory" for store in stores]}
    lists = [f"{store}_memory" for store in stores if store in LISTS]
    id: dict[str, object] = {"memory_id": text} if lists else {}
    wanted: dict[str, tuple[dict[str, object], list[str]]] = {
        "memory_update": ({"memory_type": any_store, "new_content": text, **id}, ["memory_type", "new_content"]),
        "memory_delete": ({"memory_type": any_store, **id}, ["memory_type"]),
    }
    if lists:
        kind = {"type": "string", "enum": lists}
        insert = ({"memory_type": kind, "content": text}, ["memory_type", "content"])
        wanted = {"new_memory_insert": insert, **wanted}
    return [
        {"name": name, "parameters": {"type": "object", "properties": properties, "required": required}}
        for name, (properties, required) in wanted.items()
    ]


def json_writer(memory: Memory, chunk: str, shown: int) -> list[Message]:
    """What the writer reads for a chunk, of the stores there are: what they are for, the tools, what they hold."""
    rules = memory.rules
    stores = [store for store in STORES if store in rules.stores]
    now = [f"core_memory: {memory.core or '(empty)'}"] if "core" in stores else []
    for store in (store for store in stores if store in LISTS):
        entries = memory.entries(store)
        newest = entries[-shown:] if shown else []
        now.append(f"{store}_memory ({len(newest)} of {len(entries)}):")
        now += [f"[{entry.id}] {entry.text}" for entry in newest]
    system = SYSTEM.format(
        parts="\n".join(f"- {PARTS[store].format(core=rules.core_tokens)}" for store in stores),
        tools="\n".join(map(json.dumps, tools(stores))),
        now="\n".join(now),
    )
    kept = "\n".join(f"{place}. {KEPT[store]}" for place, store in enumerate(stores, 1))
    user = UNIVERSAL.format(kept=kept, budget=rules.turn_tokens * 8 // 10, chunk=chunk)
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def json_parse(text: str) -> list[Call]:
    """A call for each `<tool_call>`, the last one's end tag may be missing; what is no call of a tool fails."""
    return [_json_call(found) for found in _CALL.findall(text)]


def _json_call(text: str) -> Call:
    try:
        found = json.loads(text)
        name, given = found["name"], found["arguments"]
        tool, store = _TOOLS[name], given["memory_type"].removesuffix("_memory")
        content, id = given.get("content" if tool == "insert" else "new_content", ""), given.get("memory_id") or ""
        content.encode(), id.encode()  # what is no text, or half a surrogate pair, fails here
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # the last: nested too deeply
        return Call("")
    if not given["memory_type"].endswith("_memory"):
        return Call("")
    return Call(tool, store, content, id)


def json_reader(evidence: Evidence, question: str) -> list[Message]:
    """What the reader reads: a system message with passages, or with core and numbered entries; the question."""
    if evidence.passages:
        system = PASSAGES.format(passages="\n".join(evidence.passages))
    else:
        lists = {store: numbered(getattr(evidence, store)) for store in LISTS}
        system = READER.format(core=evidence.core or "(empty)", **lists)
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def numbered(texts: Sequence[str]) -> str:
    """A line for each text, numbered from 1; `(empty)` for none."""
    return "\n".join(f"{place}. {text}" for place, text in enumerate(texts, 1)) or "(empty)"


def judge(call: Call) -> list[Message]:
    """Whether the content of a call is valid in its store (the paper has a prompt for each)."""
    text = JUDGED.format(store=call.store, rule=JUDGE[call.store], content=call.content)
    return [{"role": "user", "content": text}]


def judged(text: str) -> bool:
    """The verdict of a judge; False where it cannot be read."""
    found = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        return json.loads(found[0])["VALID"] is True if found else False
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


DIALECTS = {
    "compact": Dialect(compact_writer, compact_parse, compact_reader),
    "json": Dialect(json_writer, json_parse, json_reader, ASKED),
}
