"""How the tokens of one reply are sampled."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import ConfigError
from .checks import check_int, check_number, shown

MULTIPLICATIVE = "multiplicative"
SUBTRACTIVE = "subtractive"
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
    :param num_prompt_logprobs: the same for each token of the prompt, after the first; nothing that was
        computed for an earlier prompt is reused then
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
    num_prompt_logprobs: int | None = None
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
        for name in ("num_logprobs", "num_prompt_logprobs"):
            if (num := getattr(self, name)) is not None:
                check_int(name, num, 0, MAX_LOGPROBS)
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
