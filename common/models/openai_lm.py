"""Language models behind HTTP: any server that speaks the OpenAI protocol, `vllm serve` above all.

    vllm serve Qwen/Qwen2.5-7B-Instruct --generation-config vllm          # and then
    lm = OpenAILM("http://localhost:8000/v1", "Qwen/Qwen2.5-7B-Instruct")

Strings go to /completions, messages to /chat/completions, `concurrency` requests at a time. Busy or failing servers are
asked again with growing pauses (the `openai` client: 0.5 s, doubling, at most 8 s). A server of vLLM is known by its
list of models; from it come token ids, `top_k`, constrained decoding and scores of messages. Other servers get only
what the protocol has: a form is tried for (see `structured`), `score` wants strings and a server that echoes them.

An interrupt drops the requests under way; a vLLM server then stops computing them. The key is read from the
environment when a model is made, and kept nowhere else.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import openai

from common.experiments.errors import UserError, nearest
from common.models.language_model import (
    Completion,
    Prompt,
    Sampling,
    Score,
    check_fits,
    check_pairs,
    per_prompt,
    request_seed,
    well_formed,
)
from common.models.structured import check_form, checked, set_of_forms, until_valid

T = TypeVar("T")
HURRY = 10.0  # seconds that a server has to list its models


class OpenAILM:
    """A model on a server; see `LanguageModel` for what it promises.

    Args:
        url: of the protocol's root, `http://host:port/v1`.
        model: what the server calls it.
        revision: of its weights, if you know them; responses are cached only when it is given.
        key_variable: environment variable with the key; servers without keys want none.
        timeout: seconds that one try of one request may take.
        retries: tries after the first, of a request that a busy, failing or absent server did not answer.
        concurrency: most requests under way at once.
        context: most tokens of prompt and completion; needed only where the server does not say (it refuses too long
            ones in any case).

    Raises:
        UserError: no server there, or it has no such model; one line with the way out.
    """

    def __init__(
        self,
        url: str,
        model: str,
        revision: str = "",
        *,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 120.0,
        retries: int = 4,
        concurrency: int = 64,
        context: int = 0,
    ) -> None:
        self.url = url.rstrip("/")
        self.name = model
        self.revision = revision
        self.key_variable = key_variable
        self.timeout = timeout
        self.retries = retries
        self.concurrency = concurrency
        self.kv_bytes_per_token = 0
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name=f"requests to {url}").start()
        key = os.environ.get(key_variable) or "none"
        self._client = openai.AsyncOpenAI(base_url=self.url, api_key=key, timeout=timeout, max_retries=retries)
        entry = self._run(self._entry)
        self.vllm = entry.owned_by == "vllm"
        self.backend = "vllm server" if self.vllm else "openai server"
        self.context = context or int((entry.model_extra or {}).get("max_model_len") or 0)

    async def _entry(self) -> Any:
        """The model in the server's list."""
        client = self._client.with_options(max_retries=0, timeout=min(HURRY, self.timeout))
        models = {model.id: model for model in (await client.models.list()).data}
        if self.name not in models:
            raise UserError(f"{self.url} has no model '{self.name}'{nearest(self.name, models)}")
        return models[self.name]

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling | Sequence[Sampling], purpose: str = ""
    ) -> list[Completion]:
        """Complete each prompt; see `LanguageModel.generate`."""
        samplings = per_prompt(prompts, sampling)
        if not self.vllm:
            if any(one.top_k for one in samplings):
                raise UserError(f"{self.url} is no server of vLLM: the protocol has no top_k")
            return until_valid(self._generate, prompts, samplings)
        for form in set_of_forms(samplings):
            check_form(form)
        completions = self._generate(prompts, samplings)
        return [checked(c, s) for c, s in zip(completions, samplings, strict=True)]

    def _generate(self, prompts: Sequence[Prompt], samplings: Sequence[Sampling]) -> list[Completion]:
        pairs = zip(prompts, samplings, strict=True)
        return self._all([partial(self._complete, i, prompt, one) for i, (prompt, one) in enumerate(pairs)])

    async def _complete(self, index: int, prompt: Prompt, sampling: Sampling) -> Completion:
        """One request."""
        extra: dict[str, Any] = {}
        if self.vllm:
            extra = {"top_k": sampling.top_k, "return_token_ids": True}
            if sampling.regex is not None:
                extra["structured_outputs"] = {"regex": sampling.regex}
            if sampling.json_schema is not None:
                extra["structured_outputs"] = {"json": dict(sampling.json_schema)}
        options: dict[str, Any] = {
            "model": self.name,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request_seed(sampling.seed, prompt),
            "stop": sorted(sampling.stop, key=len, reverse=True) or openai.omit,
            "extra_body": extra,
        }
        try:
            if isinstance(prompt, str):
                text: str | list[int] = well_formed(prompt)
                if not text and self.vllm:  # vLLM refuses "" even where the tokenizer has a token to begin from
                    text = await self._tokens(prompt)
                    check_fits(self.name, index, len(text), sampling.max_tokens, self.context)
                if sampling.log_probs:
                    options["logprobs"] = 1
                answer: Any = await self._client.completions.create(prompt=text, **options)
            else:
                if sampling.log_probs:
                    options["logprobs"] = True
                messages: Any = [{key: well_formed(value) for key, value in message.items()} for message in prompt]
                answer = await self._client.chat.completions.create(messages=messages, **options)
        except openai.BadRequestError as error:
            raise UserError(f"{self.url} refuses prompt {index}: {_reason(error)}") from error
        return self._completion(answer, sampling)

    def _completion(self, answer: Any, sampling: Sampling) -> Completion:
        """What an answer of either endpoint says."""
        choice, usage = answer.choices[0], answer.usage
        chat = hasattr(choice, "message")
        text = (choice.message.content if chat else choice.text) or ""
        log_probs = None
        if sampling.log_probs and choice.logprobs is not None:
            found = [token.logprob for token in choice.logprobs.content] if chat else choice.logprobs.token_logprobs
            log_probs = tuple(found)
        if choice.finish_reason not in ("stop", "length"):
            raise UserError(f"{self.url} ended a text for the reason '{choice.finish_reason}'")
        ids = (choice.model_extra or {}).get("token_ids")
        token_ids = None if ids is None else tuple(ids)
        return Completion(
            text, token_ids, log_probs, choice.finish_reason, usage.prompt_tokens, usage.completion_tokens
        )

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str], purpose: str = "") -> list[Score]:
        """Log-probability of each token of each continuation; see `LanguageModel.score`.

        A server that is not vLLM's tokenises prompt and continuation as one string: where a token spans both, it counts
        to the prompt.
        """
        check_pairs(prompts, continuations)
        one = self._score_tokens if self.vllm else self._score_echo
        pairs = zip(prompts, continuations, strict=True)
        return self._all([partial(one, i, prompt, after) for i, (prompt, after) in enumerate(pairs)])

    async def _score_tokens(self, index: int, prompt: Prompt, continuation: str) -> Score:
        """By token ids and the log-probabilities of a prompt, which vLLM has."""
        before, after = await self._tokens(prompt), await self._tokens(continuation, special=False)
        check_fits(self.name, index, len(before), len(after) + 1, self.context)
        ids = before + after
        answer = await self._client.completions.create(
            model=self.name, prompt=ids, max_tokens=1, temperature=0, extra_body={"prompt_logprobs": 0}
        )
        steps: Any = (answer.choices[0].model_extra or {})["prompt_logprobs"]
        return Score(tuple(steps[i][str(ids[i])]["logprob"] for i in range(len(before), len(ids))), len(before))

    async def _score_echo(self, index: int, prompt: Prompt, continuation: str) -> Score:
        """By the protocol's own means: one string, echoed with log-probabilities."""
        if not isinstance(prompt, str):
            raise UserError(f"{self.url} is no server of vLLM: it scores strings, not messages")
        before, after = well_formed(prompt), well_formed(continuation)
        try:
            answer = await self._client.completions.create(
                model=self.name, prompt=before + after, max_tokens=1, temperature=0, echo=True, logprobs=1
            )
        except openai.BadRequestError as error:
            raise UserError(f"{self.url} refuses to score prompt {index}: {_reason(error)}") from error
        found = answer.choices[0].logprobs
        if found is None or not found.text_offset or not found.token_logprobs:
            raise UserError(f"{self.url} gives no log-probabilities of a prompt: `score` wants a server that does")
        whole = len(before) + len(after)
        places = [i for i, offset in enumerate(found.text_offset) if len(before) <= offset < whole]
        log_probs = tuple(found.token_logprobs[i] for i in places)
        return Score(log_probs, sum(offset < len(before) for offset in found.text_offset))

    async def _tokens(self, prompt: Prompt, special: bool = True) -> list[int]:
        """Token ids as the vLLM server sees them."""
        what: dict[str, Any] = {"model": self.name, "add_special_tokens": special}
        if isinstance(prompt, str):
            what["prompt"] = well_formed(prompt)
        else:
            messages = [{key: well_formed(value) for key, value in message.items()} for message in prompt]
            what |= {"messages": messages, "add_special_tokens": False}
        answer: Any = await self._client.post(f"{self.url.removesuffix('/v1')}/tokenize", cast_to=object, body=what)
        ids: list[int] = answer["tokens"]
        return ids

    def _all(self, requests: Sequence[Callable[[], Coroutine[Any, Any, T]]]) -> list[T]:
        """Results in order; the first failure drops the rest."""

        async def together() -> list[T]:
            places = asyncio.Semaphore(self.concurrency)

            async def one(request: Callable[[], Coroutine[Any, Any, T]]) -> T:
                async with places:
                    return await request()

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(request)) for request in requests]
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None
            return [task.result() for task in tasks]

        return self._run(together)

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do `work` on the thread of the requests; an interrupt here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(self._translated(work), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _translated(self, work: Callable[[], Awaitable[T]]) -> T:
        """The client's exceptions as one line each."""
        try:
            return await work()
        except openai.APITimeoutError as error:
            raise UserError(
                f"{self.url} gave no answer in {self.timeout:g} s: raise `timeout`, or lower `concurrency`"
            ) from error
        except openai.APIConnectionError as error:
            raise UserError(
                f"no server answers at {self.url}: start one, for example `vllm serve {self.name}`"
            ) from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise UserError(f"{self.url} refuses the key in ${self.key_variable}: {_reason(error)}") from error
        except openai.APIStatusError as error:
            raise UserError(f"{self.url} answers {error.status_code}: {_reason(error)}") from error

    def close(self) -> None:
        """Close the connections."""
        self._run(self._client.close)
        self._loop.call_soon_threadsafe(self._loop.stop)


def _reason(error: openai.APIStatusError) -> str:
    """What a server says of a failure, in one line."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(message or error.message).split())
