"""What a client asks for: OpenAI's fields and our sampling settings, checked one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from jielong.config.hints import hint
from jielong.config.sampling import Sampling
from jielong.errors import ConfigError, DataError
from jielong.generation.generate import encode_prompt
from jielong.model.transformer import Transformer, context_length
from jielong.serving.errors import RequestError
from jielong.serving.limits import Limits
from jielong.serving.rows import TextRequest
from jielong.tokenization.tokenizer import Tokenizer

SAMPLING = tuple(field.name for field in dataclasses.fields(Sampling))
SHARED = (
    *("model", "max_tokens", "n", "stop", "stream", "stream_options", "ignore_eos", "user"),
    *SAMPLING,
)
COMPLETION = (*SHARED, "prompt", "echo", "logprobs")
CHAT = (*SHARED, "messages", "max_completion_tokens", "logprobs", "top_logprobs")
# fields of OpenAI's that we do not have, with the values that change nothing, and what to do
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "best_of": ((), "ask for n texts and choose among them"),
    "frequency_penalty": ((0,), "use repetition_penalty"),
    "presence_penalty": ((0,), "use repetition_penalty"),
    "logit_bias": (({},), "leave it out"),
    "suffix": (("",), "the model only continues texts"),
    "tools": (([],), "leave it out"),
    "tool_choice": (("none",), "leave it out"),
    "response_format": (({"type": "text"},), "leave it out"),
}
MOST_LOGPROBS = 20
MOST_STOPS, MOST_STOP_CHARS = 16, 256
DEFAULT_MAX_TOKENS = 16  # OpenAI's default for completions
CHAT_MAX_TOKENS = 256


@dataclass(frozen=True)
class Call:
    """A request that has been checked.

    Attributes:
        texts: what to continue: the `n` texts of the first prompt, then those of the next.
        stream: whether the answer comes piece by piece.
        usage: whether its last piece tells the numbers of tokens.
        prompt_tokens: of all prompts, each counted once.
    """

    texts: list[TextRequest]
    stream: bool
    usage: bool
    prompt_tokens: int


def json_object(body: bytes) -> dict[str, Any]:
    """Parse the body of a request.

    Raises:
        RequestError: it is no JSON object.
    """
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise RequestError("the body is not a JSON object")
    return values


class RequestReader:
    """Reads the bodies of requests for one model.

    Args:
        model, tokenizer: what is served.
        name: what it is called.
        limits: of the server.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, name: str, limits: Limits) -> None:
        self.model, self.tokenizer, self.name, self.limits = model, tokenizer, name, limits

    def fields(self, body: bytes, known: Sequence[str]) -> dict[str, Any]:
        """Parse a body; leave out what is null, and what has the value that changes nothing.

        Raises:
            RequestError: it is no JSON object, or has a field that is unknown or refused, or asks
                for another model.
        """
        values = json_object(body)
        values = {name: value for name, value in values.items() if value is not None}
        for name in list(values):
            if name in REFUSED:
                harmless, advice = REFUSED[name]
                if values.pop(name) not in harmless:
                    raise RequestError(f"{name} is not supported: {advice}", field=name)
            elif name not in known:
                shown = name[:60]
                raise RequestError(f"unknown field {shown!r}{hint(shown, known)}", field=shown)
        model = values.pop("model", self.name)
        if model != self.name:
            message = f"there is no such model here; this server has {self.name!r}"
            raise RequestError(message, 404, "model")
        return values

    def completion(self, values: dict[str, Any]) -> Call:
        """Check a request to continue texts.

        Raises:
            RequestError: the message and `field` name what is wrong.
        """
        top = _integer(values, "logprobs", None, 0, MOST_LOGPROBS)
        echo = _boolean(values, "echo", False)
        prompts = self._prompts(values)
        template = self._template(values, DEFAULT_MAX_TOKENS, top, echo)
        return self._call(values, prompts, template)

    def chat(self, values: dict[str, Any], prompt: str) -> Call:
        """Check a request to continue a conversation, whose text the chat template has written.

        Raises:
            RequestError: the message and `field` name what is wrong.
        """
        if "max_completion_tokens" in values:
            values["max_tokens"] = values.pop("max_completion_tokens")
        top = _integer(values, "top_logprobs", 0, 0, MOST_LOGPROBS)
        asked = _boolean(values, "logprobs", False)
        if top and not asked:
            raise RequestError("top_logprobs needs logprobs: true", field="top_logprobs")
        ids = self._encode(prompt, "messages")  # bos is in the template
        template = self._template(values, CHAT_MAX_TOKENS, top if asked else None, False)
        return self._call(values, [(ids, 0)], template)

    def _call(
        self, values: dict[str, Any], prompts: list[tuple[list[int], int]], template: TextRequest
    ) -> Call:
        n = _integer(values, "n", 1, 1, self.limits.choices)
        if len(prompts) * n > self.limits.choices:
            message = f"{len(prompts)} prompts times n={n} is above {self.limits.choices} texts"
            raise RequestError(message, field="n")
        stream = _boolean(values, "stream", False)
        options = values.get("stream_options", {})
        if not isinstance(options, dict) or options.keys() - {"include_usage"}:
            raise RequestError("stream_options takes include_usage only", field="stream_options")
        texts = [
            dataclasses.replace(
                template, ids=ids, hidden=hidden, sampling=_with_seed(template.sampling, sample)
            )
            for ids, hidden in prompts
            for sample in range(n)
        ]
        usage = _boolean(options, "include_usage", False)
        return Call(texts, stream, usage, sum(len(ids) - hidden for ids, hidden in prompts))

    def _template(
        self, values: dict[str, Any], tokens: int, top: int | None, echo: bool
    ) -> TextRequest:
        """Everything of a text but its prompt."""
        default = min(tokens, self.limits.max_tokens)
        return TextRequest(
            ids=[],
            hidden=0,
            max_tokens=_integer(values, "max_tokens", default, 0, self.limits.max_tokens),
            sampling=_sampling(values),
            stop=_stop(values.get("stop", [])),
            stop_at_eos=not _boolean(values, "ignore_eos", False),
            echo=echo,
            top_logprobs=top,
        )

    def _prompts(self, values: dict[str, Any]) -> list[tuple[list[int], int]]:
        """Return the ids of each prompt, and how many of them are bos that we add."""
        if "prompt" not in values:
            raise RequestError("prompt is missing", field="prompt")
        prompt = values["prompt"]
        several = isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], str | list)
        prompts = prompt if several else [prompt]
        if len(prompts) > self.limits.choices:
            message = f"{len(prompts)} prompts are above {self.limits.choices}"
            raise RequestError(message, field="prompt")
        return [self._one_prompt(one) for one in prompts]

    def _one_prompt(self, prompt: object) -> tuple[list[int], int]:
        if isinstance(prompt, str):
            return self._within(self._encode(prompt, "prompt", bos=True)), int(self._has_bos)
        if not isinstance(prompt, list) or not all(type(token) is int for token in prompt):
            message = "prompt is not a text, a list of texts, token ids, or a list of token ids"
            raise RequestError(message, field="prompt")
        if not prompt:
            raise RequestError("prompt is an empty list of token ids", field="prompt")
        if not 0 <= min(prompt) <= max(prompt) < self.model.config.vocab_size:
            last = self.model.config.vocab_size - 1
            raise RequestError(f"prompt has token ids that are not 0 to {last}", field="prompt")
        return self._within(prompt), 0

    @property
    def _has_bos(self) -> bool:
        return self.tokenizer.bos_id is not None

    def _encode(self, text: str, field: str, bos: bool = False) -> list[int]:
        try:
            ids = encode_prompt(self.model, self.tokenizer, text)
        except DataError as error:
            raise RequestError(str(error), field=field) from None
        return ids if bos or not self._has_bos else self._within(ids[1:], field)

    def _within(self, ids: list[int], field: str = "prompt") -> list[int]:
        context = context_length(self.model.config)
        if len(ids) > context:
            raise RequestError(
                f"{field} has {len(ids)} tokens, the model reads {context}: shorten it", field=field
            )
        if not ids:
            raise RequestError(f"{field} is empty", field=field)
        return ids


def _sampling(values: Mapping[str, Any]) -> Sampling:
    for name in SAMPLING:  # one by one, so that the error names its field
        if name in values:
            try:
                Sampling(**{name: values[name]})
            except ConfigError as error:
                raise RequestError(str(error).removeprefix("sampling."), field=name) from None
    return Sampling(**{name: values[name] for name in SAMPLING if name in values})


def _with_seed(sampling: Sampling, sample: int) -> Sampling:
    """The sampling of one of n texts: each has a seed of its own, as in `jielong generate`."""
    if sampling.seed is None or not sample:
        return sampling
    return dataclasses.replace(sampling, seed=(sampling.seed + sample) % 2**63)


def _stop(stop: object) -> tuple[str, ...]:
    texts = [stop] if isinstance(stop, str) else stop
    if (
        not isinstance(texts, list)
        or len(texts) > MOST_STOPS
        or not all(isinstance(text, str) and 0 < len(text) <= MOST_STOP_CHARS for text in texts)
    ):
        message = f"stop is not a text, or a list of at most {MOST_STOPS} texts, of 1 to "
        raise RequestError(f"{message}{MOST_STOP_CHARS} characters each", field="stop")
    return tuple(texts)


def _integer(values: Mapping[str, Any], name: str, default: Any, low: int, high: int) -> Any:
    value = values.get(name, default)
    if name in values and (type(value) is not int or not low <= value <= high):
        shown = str(value)[:40]
        message = f"{name}={shown} is not a whole number from {low} to {high}"
        raise RequestError(message, field=name)
    return value


def _boolean(values: Mapping[str, Any], name: str, default: bool) -> bool:
    value = values.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"{name} is not true or false", field=name)
    return value
