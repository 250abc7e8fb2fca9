"""Language models of vLLM, in this process: continuous batching, on GPUs or on a CPU.

vLLM is an extra: `pip install -e '.[vllm]'` on a machine with GPUs; for a CPU, `make vllm` makes an environment of its
own in .venv-vllm, whose interpreter runs this module (everything else reaches that vLLM over HTTP, see `openai_lm`).
Prompts are tokenised here, as for transformers, so that both see the same tokens. Structured output is vLLM's own.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from common.experiments.errors import UserError, nearest
from common.models.hub import located
from common.models.language_model import (
    Completion,
    Prompt,
    Sampling,
    Score,
    check_fits,
    check_pairs,
    encode,
    encode_continuation,
    per_prompt,
    request_seed,
)
from common.models.structured import check_form, checked, set_of_forms

DTYPES = ("float32", "bfloat16", "float16")
INSTALL = "vLLM is not installed here: pip install -e '.[vllm]' (GPU), or `make vllm` and .venv-vllm/bin/python (CPU)"
# vLLM 0.31: the rotary operator for CPUs rotates LFM2's heads by the positions of other tokens; torch's own is right.
CPU_OPERATORS = {"custom_ops": ["-rotary_embedding"]}


class VllmLM:
    """A language model of vLLM; see `LanguageModel` for what it promises.

    Args:
        engine: a `vllm.LLM`.
        name, revision: of the weights.
        kv_bytes_per_token: of one more token of context.
    """

    def __init__(self, engine: Any, name: str, revision: str, kv_bytes_per_token: int) -> None:
        self.engine = engine
        self.name = name
        self.revision = revision
        self.kv_bytes_per_token = kv_bytes_per_token
        self.backend = f"vllm {str(engine.model_config.dtype).removeprefix('torch.')}"
        self.tokenizer = engine.get_tokenizer()
        self.context = int(engine.model_config.max_model_len)

    @classmethod
    def load(
        cls,
        name: str,
        revision: str | None = None,
        *,
        dtype: str = "float32",
        context: int | None = None,
        memory: float | None = None,
        gpus: int = 1,
        eager: bool | None = None,
    ) -> Self:
        """A model from a folder or from this machine's copy of the Hugging Face hub; only safetensors, no download.

        Args:
            name: `owner/name` on the hub, or a path.
            revision: commit, branch or tag on the hub; None is `main` as it was downloaded.
            context: most tokens of prompt and completion together; None is what the model was made for.
            memory: for keys and values, in GB (10⁹ bytes); None is 0.5 on a CPU, and on GPUs what vLLM finds free.
            gpus: over how many the model is split (tensor parallel).
            eager: run without compiling; None compiles on GPUs alone (on a CPU it takes a minute and gains little).

        Raises:
            UserError: vLLM is not installed, or the model is not on this machine; one line with the way out.
        """
        if dtype not in DTYPES:
            raise UserError(f"unknown dtype '{dtype}'{nearest(dtype, DTYPES)}")
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # in this process: seeds and interrupts hold
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        try:
            import vllm
        except ModuleNotFoundError as error:
            raise UserError(INSTALL) from error
        import torch
        from vllm.platforms import current_platform

        from common.models.kv_cache import bytes_per_token
        from common.models.transformers_lm import check_loadable

        folder, title, commit = located(name, revision)
        check_loadable(folder, title)
        cpu = current_platform.is_cpu()
        options: dict[str, Any] = {} if gpus == 1 else {"tensor_parallel_size": gpus}
        if memory is not None or cpu:
            options["kv_cache_memory_bytes"] = int((0.5 if memory is None else memory) * 1e9)
        if cpu:
            options["compilation_config"] = CPU_OPERATORS
        engine = vllm.LLM(
            os.fspath(folder),
            dtype=dtype,
            max_model_len=context,
            enforce_eager=cpu if eager is None else eager,
            load_format="safetensors",
            generation_config="vllm",  # the sampling is ours alone, never a default that came with the weights
            **options,
        )
        size = bytes_per_token(engine.model_config.hf_config, getattr(torch, dtype))
        return cls(engine, title, commit, size)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling | Sequence[Sampling], purpose: str = ""
    ) -> list[Completion]:
        """Complete each prompt; see `LanguageModel.generate`."""
        samplings = per_prompt(prompts, sampling)
        for form in set_of_forms(samplings):
            check_form(form)
        tokens = []
        for index, (prompt, one) in enumerate(zip(prompts, samplings, strict=True)):
            ids = encode(self.tokenizer, prompt)
            check_fits(self.name, index, len(ids), one.max_tokens, self.context)
            tokens.append(ids)
        outputs = self._run(tokens, [self._parameters(p, s) for p, s in zip(prompts, samplings, strict=True)])
        return [checked(_completion(output, s), s) for output, s in zip(outputs, samplings, strict=True)]

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str], purpose: str = "") -> list[Score]:
        """Log-probability of each token of each continuation; see `LanguageModel.score`."""
        from vllm import SamplingParams

        check_pairs(prompts, continuations)
        tokens, lengths = [], []
        for index, (prompt, continuation) in enumerate(zip(prompts, continuations, strict=True)):
            before, after = encode(self.tokenizer, prompt), encode_continuation(self.tokenizer, continuation)
            check_fits(self.name, index, len(before), len(after) + 1, self.context)
            tokens.append(before + after)
            lengths.append(len(after))
        outputs = self._run(tokens, [SamplingParams(max_tokens=1, prompt_logprobs=0) for _ in tokens])
        scores = []
        for output, length in zip(outputs, lengths, strict=True):
            ids, steps = output.prompt_token_ids, output.prompt_logprobs
            begin = len(ids) - length
            scores.append(Score(tuple(steps[i][ids[i]].logprob for i in range(begin, len(ids))), begin))
        return scores

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Take over weights of a transformers model of the same architecture, and forget the keys and values of others.

        Args:
            weights: names as transformers has them, and tensors on any device; vLLM keeps its own dtype.

        Raises:
            RuntimeError: requests are under way, so that keys and values cannot be forgotten.
        """
        named = ((name, tensor.detach()) for name, tensor in weights)
        self.engine.collective_rpc("reload_weights", kwargs={"weights_iterator": named})
        if not self.engine.reset_prefix_cache():
            raise RuntimeError("vLLM kept keys and values of earlier weights: requests are under way")

    def _parameters(self, prompt: Prompt, sampling: Sampling) -> Any:
        """What vLLM calls the sampling of one request."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        form = None
        if sampling.constrained:
            schema = None if sampling.json_schema is None else dict(sampling.json_schema)
            form = StructuredOutputsParams(regex=sampling.regex, json=schema)
        return SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=request_seed(sampling.seed, prompt),
            stop=sorted(sampling.stop, key=len, reverse=True),  # of several that complete at once vLLM takes the first
            stop_token_ids=self._ends,
            logprobs=0 if sampling.log_probs else None,
            structured_outputs=form,
        )

    @property
    def _ends(self) -> list[int]:
        """Ends of a text beyond the tokenizer's, from the model's own generation config."""
        ends = self.engine.model_config.try_get_generation_config().get("eos_token_id")
        return [i for i in (ends if isinstance(ends, list) else [ends]) if i is not None]

    def _run(self, tokens: Sequence[list[int]], parameters: Sequence[Any]) -> list[Any]:
        """Outputs of the requests in their order. On an interrupt the step under way ends and all requests go."""
        if not tokens:
            return []
        core = self.engine.llm_engine
        with held_interrupts() as interrupted:
            names = self.engine.enqueue([{"prompt_token_ids": ids} for ids in tokens], list(parameters), use_tqdm=False)
            outputs: dict[str, Any] = {}
            try:
                while core.has_unfinished_requests() and not interrupted():
                    outputs |= {output.request_id: output for output in core.step() if output.finished}
            finally:
                if core.has_unfinished_requests():
                    core.abort_request(names, internal=True)
        ordered = sorted(outputs.values(), key=lambda output: int(output.request_id))
        if len(ordered) != len(tokens):
            raise RuntimeError(f"vLLM finished {len(ordered)} of {len(tokens)} requests")
        return ordered


def _completion(output: Any, sampling: Sampling) -> Completion:
    found = output.outputs[0]
    ids = tuple(found.token_ids)
    log_probs = None
    if sampling.log_probs:
        log_probs = tuple(step[token].logprob for step, token in zip(found.logprobs, ids, strict=True))
    reason = found.finish_reason
    if reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM ended a request with '{reason}'")
    return Completion(found.text, ids, log_probs, reason, len(output.prompt_token_ids), len(ids))


@contextmanager
def held_interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C waits: the body learns of it from the function it is given, and KeyboardInterrupt is raised at the end.

    Only the main thread receives signals; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    caught: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: bool(caught)
    finally:
        signal.signal(signal.SIGINT, before)
        if caught:
            raise KeyboardInterrupt
