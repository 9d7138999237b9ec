"""Settings of the engine, of visitors and of one reply: immutable, and checked when they are made."""

from __future__ import annotations

import inspect
import reprlib
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any

from .errors import ConfigError

MULTIPLICATIVE = "multiplicative"
SUBTRACTIVE = "subtractive"
MAX_RUNNING = 4096  # replies generated at once
MAX_STOP_STRINGS = 16
MAX_STOP_STRING_LEN = 256  # characters
MAX_LOGIT_BIASES = 1024
MAX_ALLOWED_TOKENS = 65_536
MAX_BAD_WORDS = 128
MAX_LOGPROBS = 20
MAX_TEMPERATURE = 2
MAX_PENALTY = 2  # of frequency and presence, also below zero
MIN_REPETITION_PENALTY = 0.01  # multiplicative
MAX_REPETITION_PENALTY = 100
MAX_LOGIT_BIAS = 100  # also below zero
MIN_EXTRA_READERS = 8
MAX_SHOWN_NAMES = 5  # unknown names that an error message lists


class SettingEnum(Enum):
    """A setting that is one of a few words; any other raises ConfigError with the words that are allowed."""

    @classmethod
    def _missing_(cls, value: object) -> None:
        allowed = ", ".join(repr(member.value) for member in cls)
        raise ConfigError(f"{_SETTING_NAMES[cls.__name__]} must be one of {allowed}, not {shown(value)}")


class ContextPolicy(SettingEnum):
    """What to leave out of a conversation that does not fit into the context."""

    ERROR = "error"
    DROP_OLDEST_TURNS = "drop_oldest_turns"
    KEEP_SYSTEM_AND_RECENT = "keep_system_and_recent"


class OnBusy(SettingEnum):
    """What to do with a request for a conversation that already has a running reply."""

    REJECT = "reject"  # 409
    QUEUE = "queue"  # wait until it has ended
    REPLACE = "replace"  # end it and keep its text


class WireFormatName(SettingEnum):
    """Format of a streamed reply."""

    AUTO = "auto"  # by the client's Accept header
    CHATSTREAM = "chatstream"  # frames of the ChatStream package, for front ends written for it


class Dtype(SettingEnum):
    """Data type in which a model's weights are loaded."""

    AUTO = "auto"  # as they were saved
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Weights(SettingEnum):
    """How matrices are rounded when a model is loaded."""

    AUTO = "auto"  # not at all: as dtype says, or as they are packed in the file
    INT8 = "int8"
    INT4 = "int4"


_SETTING_NAMES = {
    "WireFormatName": "wire_format",
    "ContextPolicy": "context_policy",
    "OnBusy": "on_busy",
    "Dtype": "dtype",
    "Weights": "weights",
}


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to sample the tokens of one reply.

    They are applied in the order of transformers: grammar, logit bias, repetition penalty (followed by
    frequency and presence penalty, which transformers does not have), temperature, top-k, top-p, min-p.
    Greedy decoding takes the highest logit before temperature.

    :param max_new_tokens: maximum length of the reply in tokens, without its reasoning
    :param max_reasoning_tokens: length of the reasoning in tokens, before the answer and beyond
        max_new_tokens, after which the model is made to answer; None: as much as the context has room for
    :param temperature: 0 to 2; 0 is greedy decoding
    :param top_k: sample from this many most likely tokens; None or 0: from all
    :param top_p: sample from the most likely tokens that reach this total probability; 1: from all
    :param repetition_penalty: penalty for tokens of the prompt and the reply; None: no penalty
    :param repetition_penalty_method: "multiplicative" divides a positive logit by the penalty and multiplies
        a negative one, as transformers does; "subtractive" subtracts it
    :param seed: seed of the random numbers; None: a new one for each reply
    :param stop: strings before which the reply ends
    :param frequency_penalty: subtracted for each time a token was generated, as OpenAI does
    :param presence_penalty: subtracted once for each token that was generated, as OpenAI does
    :param min_p: drop tokens whose probability is below this fraction of the highest one; 0: drop none
    :param logit_bias: pairs of a token id and a number that is added to its logit
    :param num_logprobs: return the log-probability of each token and of this many most likely ones; None: of
        none
    :param min_new_tokens: the reply does not end before it has this many tokens: tokens that end it are not
        sampled, and stop strings are not looked for
    :param allowed_token_ids: sample only these tokens; none: all
    :param bad_words_ids: sequences of token ids that the reply must not contain
    :param include_stop_str_in_output: end the text with the stop string rather than before it
    :param grammar: grammar that the reply must follow, made by `chatstream_flask.grammar`
    :raises ConfigError: a value is not allowed
    """

    max_new_tokens: int = 256
    max_reasoning_tokens: int | None = None
    temperature: float = 1.0
    top_k: int | None = 50
    top_p: float = 1.0
    repetition_penalty: float | None = None
    repetition_penalty_method: str = MULTIPLICATIVE
    seed: int | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    min_p: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    num_logprobs: int | None = None
    min_new_tokens: int = 0
    allowed_token_ids: tuple[int, ...] = field(default=(), repr=False)  # may be long
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    include_stop_str_in_output: bool = False
    grammar: str | None = field(default=None, repr=False)  # may be long

    def __post_init__(self) -> None:
        check_int("max_new_tokens", self.max_new_tokens, 1)
        if self.max_reasoning_tokens is not None:
            check_int("max_reasoning_tokens", self.max_reasoning_tokens, 0)
        check_number("temperature", self.temperature, 0, MAX_TEMPERATURE)
        if self.top_k is not None:
            check_int("top_k", self.top_k, 0)
        check_number("top_p", self.top_p, 0, 1)
        if self.top_p == 0:
            raise ConfigError("top_p must be above 0, not 0")
        if self.repetition_penalty_method not in (MULTIPLICATIVE, SUBTRACTIVE):
            raise ConfigError(
                f"repetition_penalty_method must be '{MULTIPLICATIVE}' or '{SUBTRACTIVE}', "
                f"not {shown(self.repetition_penalty_method)}"
            )
        if self.repetition_penalty is not None:
            is_factor = self.repetition_penalty_method == MULTIPLICATIVE
            low = MIN_REPETITION_PENALTY if is_factor else -MAX_REPETITION_PENALTY
            check_number("repetition_penalty", self.repetition_penalty, low, MAX_REPETITION_PENALTY)
        if self.seed is not None:
            check_int("seed", self.seed, 0, 2**63 - 1)
        check_number("frequency_penalty", self.frequency_penalty, -MAX_PENALTY, MAX_PENALTY)
        check_number("presence_penalty", self.presence_penalty, -MAX_PENALTY, MAX_PENALTY)
        check_number("min_p", self.min_p, 0, 1)
        if self.num_logprobs is not None:
            check_int("num_logprobs", self.num_logprobs, 0, MAX_LOGPROBS)
        check_int("min_new_tokens", self.min_new_tokens, 0, self.max_new_tokens)
        if len(self.allowed_token_ids) > MAX_ALLOWED_TOKENS:
            raise ConfigError(f"allowed_token_ids may name at most {MAX_ALLOWED_TOKENS} tokens")
        if not all(self.bad_words_ids):
            raise ConfigError("bad_words_ids has a sequence without tokens")
        if self.grammar is not None and (self.min_new_tokens or self.is_restricted):
            raise ConfigError(
                "min_new_tokens, allowed_token_ids and bad_words_ids cannot be combined with a grammar, "
                "which might then allow no token"
            )
        if self.grammar is not None and not (isinstance(self.grammar, str) and self.grammar):
            raise ConfigError(f"grammar must be a non-empty string, not {shown(self.grammar)}")
        self._check_stop()
        self._check_logit_bias()

    def _check_stop(self) -> None:
        if not isinstance(self.stop, tuple) or not all(isinstance(s, str) and s for s in self.stop):
            raise ConfigError("stop must be a list of non-empty strings")
        if len(self.stop) > MAX_STOP_STRINGS or any(len(s) > MAX_STOP_STRING_LEN for s in self.stop):
            raise ConfigError(
                f"stop may hold at most {MAX_STOP_STRINGS} strings of up to {MAX_STOP_STRING_LEN} characters"
            )

    def _check_logit_bias(self) -> None:
        if not isinstance(self.logit_bias, tuple) or not all(
            isinstance(pair, tuple) and len(pair) == 2 for pair in self.logit_bias
        ):
            raise ConfigError("logit_bias must be pairs of a token id and a number")
        if len(self.logit_bias) > MAX_LOGIT_BIASES:
            raise ConfigError(
                f"logit_bias may name at most {MAX_LOGIT_BIASES} tokens, not {len(self.logit_bias)}"
            )
        for token_id, bias in self.logit_bias:
            check_int("a token id in logit_bias", token_id, 0)
            check_number("a bias in logit_bias", bias, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS)
        if len({token_id for token_id, _ in self.logit_bias}) < len(self.logit_bias):
            raise ConfigError("logit_bias names a token twice")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def is_restricted(self) -> bool:
        """Whether some tokens must not be sampled."""
        return bool(self.allowed_token_ids or self.bad_words_ids)


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Limits of an engine: how many replies run, how many requests wait, how long they are."""

    max_running: int = 2  # replies generated at once, over all threads (num_of_concurrent_executions)
    max_queue_size: int = 5  # requests that may wait, in addition
    num_of_generation_threads: int = 1
    context_len: int = 1024  # tokens of prompt and reply together
    prefill_chunk_len: int = 256  # maximum of prompt tokens computed in one step
    prefill_priority: float = 0.63  # share of a step that prompts may take while replies are running
    kv_cache_slots: int | None = None  # sequences whose keys and values are kept; None: max_running
    num_devices: int = 1  # each has a copy of the model and the same number of threads

    def __post_init__(self) -> None:
        check_int("num_of_concurrent_executions", self.max_running, 1, MAX_RUNNING)
        check_int("max_queue_size", self.max_queue_size, 0, 1_000_000)
        check_int("num_of_generation_threads", self.num_of_generation_threads, 1, 64)
        check_int("context_len", self.context_len, 2)
        check_int("prefill_chunk_len", self.prefill_chunk_len, 1)
        check_number("prefill_priority", self.prefill_priority, 0, 1)
        check_int("num_devices", self.num_devices, 1)
        self._check_devices()
        if self.num_of_generation_threads > self.max_running:
            raise ConfigError(
                f"num_of_generation_threads={self.num_of_generation_threads} is more than "
                f"num_of_concurrent_executions={self.max_running}: "
                "some threads would never have a reply to generate"
            )
        if self.kv_cache_slots is not None:
            check_int("kv_cache_slots", self.kv_cache_slots, self.max_running, 65_536)

    def _check_devices(self) -> None:
        if self.max_running < self.num_devices:
            raise ConfigError(
                f"num_of_concurrent_executions={self.max_running} is less than the "
                f"{self.num_devices} devices: some would never have a reply to generate"
            )
        if self.num_of_generation_threads % self.num_devices:
            raise ConfigError(
                f"num_of_generation_threads={self.num_of_generation_threads} is not a multiple of the "
                f"{self.num_devices} devices: each needs the same number of threads"
            )

    @property
    def num_places(self) -> int:
        """Requests that can be accepted at once, running and waiting together."""
        return self.max_running + self.max_queue_size

    @property
    def max_extra_readers(self) -> int:
        """Readers of replies beyond the first of each: second tabs, reconnections."""
        return max(self.num_places, MIN_EXTRA_READERS)

    def to_dict(self) -> dict[str, float | None]:
        """Return the settings, named as the parameters of `ChatStream` are."""
        settings = asdict(self)
        return {"num_of_concurrent_executions": settings.pop("max_running"), **settings}

    def device(self, worker: int) -> int:
        """Return the device number of worker thread `worker`."""
        return worker % self.num_devices

    def num_slots(self, worker: int) -> int:
        """Return how many sequences worker thread `worker` runs at once; threads differ by one at most."""
        return self._share(self.max_running, worker)

    def num_kept_slots(self, worker: int) -> int:
        """Return how many sequences it keeps the keys and values of, running ones included."""
        return self._share(self.kv_cache_slots or self.max_running, worker)

    def _share(self, number: int, worker: int) -> int:
        share, rest = divmod(number, self.num_of_generation_threads)
        return share + (worker < rest)


@dataclass(frozen=True, kw_only=True)
class VisitorLimits:
    """Limits for one visitor; None: no limit. Requests beyond `max_running` wait in the queue."""

    max_running: int | None = None
    max_waiting: int | None = None
    max_tokens_per_minute: int | None = None  # of prompts and replies

    def __post_init__(self) -> None:
        for name, low in (("max_running", 1), ("max_waiting", 0), ("max_tokens_per_minute", 1)):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), low)


NO_LIMITS = VisitorLimits()


def check_int(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raise ConfigError if the value is not a whole number between `low` and `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} must be a whole number, not {shown(value)}")
    if value < low or (high is not None and value > high):
        raise ConfigError(f"{name} must be {_range(low, high)}, not {shown(value)}")


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Raise ConfigError if the value is not a number between `low` and `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} must be a number, not {shown(value)}")
    if not low <= value <= high:  # also catches NaN
        raise ConfigError(f"{name} must be {_range(low, high)}, not {shown(value)}")


def check_names(kind: str, given: dict[str, Any], allowed: type | set[str]) -> None:
    """Raise ConfigError with the allowed names if a name is unknown: it may be misspelt.

    :param kind: what the names are, for the message
    :param allowed: the names, or a dataclass with these fields
    """
    names = allowed if isinstance(allowed, set) else {f.name for f in fields(allowed)}
    if unknown := [name for name in given if name not in names]:
        shown_names = ", ".join(_shown_name(name) for name in unknown[:MAX_SHOWN_NAMES])
        rest = f" and {len(unknown) - MAX_SHOWN_NAMES} more" if len(unknown) > MAX_SHOWN_NAMES else ""
        raise ConfigError(f"unknown {kind} {shown_names}{rest}; allowed: {', '.join(sorted(names))}")


def check_callback(name: str, value: Any, *arguments: str) -> None:
    """Raise ConfigError if a value cannot be called with these arguments, or is a coroutine function."""
    wanted = f"{name} must be a function that can be called as {name}({', '.join(arguments)})"
    if not callable(value):
        raise ConfigError(f"{wanted}, not {shown(value)}")
    if inspect.iscoroutinefunction(value):
        raise ConfigError(f"{wanted}; an async function would never be awaited")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # some functions written in C do not tell it
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise ConfigError(f"{wanted}: {error}") from error


def shown(value: Any) -> str:
    """Return a short repr of any value, for messages: values may come from clients and be huge."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python does not convert integers of thousands of digits
        return f"a {type(value).__name__} with very many digits"


def _shown_name(name: Any) -> str:
    return name if isinstance(name, str) and name.isidentifier() and len(name) <= 60 else shown(name)


def _range(low: float, high: float | None) -> str:
    return f"at least {low}" if high is None else f"between {low} and {high}"
