"""TransformersSource: a transformers model with its tokenizer; imports torch only when it is created."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..config import EngineConfig, SamplingParams
from ..engine.runner import Runner
from ..errors import BadRequest, ConfigError
from ..grammar.matcher import GrammarCompiler
from ..prompts.turn_end import missing_turn_end
from .tokenizer_source import TokenizerSource
from .vocabulary import check_vocabulary, num_embeddings

if TYPE_CHECKING:
    from ..inference.prepared_model import PreparedModel

logger = logging.getLogger("chatstream_flask")

MAX_SEQUENCES_OF_ONE_CPU_THREAD = 32  # beyond it, two threads on half of the cores each are faster


class TransformersSource(TokenizerSource):
    """The ModelSource of a local model.

    No device is touched before the first `make_runner`, so that a server may fork until then.
    """

    prefill_chunk_len = EngineConfig.prefill_chunk_len

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        devices: Sequence[str],
        context_len: int,
        add_special_tokens: bool | None,
        prompt_lookup_num_tokens: int | None = None,
    ) -> None:
        """Check the model and its tokenizer.

        :param devices: the devices to move or copy the model to; empty: leave it where it is
        :raises ConfigError: the model or the tokenizer cannot be used
        """
        if model is None or tokenizer is None:
            raise ConfigError("model and tokenizer are required, unless use_mock_response=True")
        if not hasattr(model, "config") or not callable(model):
            raise ConfigError(f"model must be a loaded transformers model, not {model!r}")
        if not hasattr(tokenizer, "decode"):
            raise ConfigError(f"tokenizer must be a loaded transformers tokenizer, not {tokenizer!r}")
        from ..inference.own_tokenizer import own_tokenizer
        from ..inference.placement import check_built_for, is_dispatched

        check_built_for(devices)
        if devices and is_dispatched(model):
            raise ConfigError(
                "the model was loaded with device_map, which has placed it already: leave device out"
            )
        self._model = model
        super().__init__(
            own_tokenizer(tokenizer),
            min(context_len, _max_positions(model.config) or context_len),
            add_special_tokens,
            num_embeddings(model),
        )
        self._devices = devices
        self.num_devices = max(len(devices), 1)
        self._num_drafts = prompt_lookup_num_tokens or 0
        self._prepared: list[PreparedModel] = []  # one for each device
        self._num_cores = 0  # CPU cores of the process; 0 until the first make_runner
        self._grammars = GrammarCompiler(self._tokenizer, self._eos_ids)
        self.model_name = _short_name(getattr(model.config, "name_or_path", ""))
        self._turn_end = self._added_turn_end()

    def best_num_threads(self, num_sequences: int) -> int:
        """Return one thread per device, or on CPU two for more than a few sequences.

        One thread reads the weights once for all of its sequences. With many sequences the matrix products
        take longer than reading the weights, and two threads with half of the cores each never wait for one
        another.
        """
        from ..inference.cpu_quota import num_usable_cores

        kinds = set(self._devices or [str(self._model.device)])
        are_many = num_sequences > MAX_SEQUENCES_OF_ONE_CPU_THREAD * self.num_devices
        per_device = min(2, num_usable_cores()) if kinds == {"cpu"} and are_many else 1
        return per_device * self.num_devices

    def make_runner(self, num_slots: int, num_threads: int, device: int) -> Runner:
        from ..inference.cpu_quota import num_usable_cores
        from ..inference.draft_length_tuner import DraftLengthTuner
        from ..inference.model_runner import ModelRunner
        from ..inference.placement import place
        from ..inference.prepared_model import PreparedModel

        # Read once: later, torch reports what a worker thread has set for itself.
        self._num_cores = self._num_cores or num_usable_cores()
        if not self._prepared:
            if self._num_embeddings is not None:
                check_vocabulary(self._tokenizer, self._num_embeddings)
            models = place(self._model, self._devices)
            self._prepared = [PreparedModel(model, self.context_len) for model in models]
        num_cpu_threads = num_threads * max(self._devices.count("cpu"), 1) // self.num_devices
        return ModelRunner(
            self._prepared[device],
            self._tokenizer,
            num_slots=num_slots,
            num_cores=max(1, self._num_cores // num_cpu_threads),
            all_cores=self._num_cores,
            grammars=self._grammars,
            more_eos_ids=() if self._turn_end is None else (self._turn_end,),
            draft_tuner=DraftLengthTuner(self._num_drafts) if self._num_drafts else None,
            prefill_chunk_len=self.prefill_chunk_len,
        )

    @property
    def is_padded(self) -> bool:
        """Whether each row of a decode step costs as much as the longest; known once a runner was opened."""
        return any(prepared.forward.is_padded for prepared in self._prepared)

    @property
    def packs_prompts(self) -> bool:
        """Whether the prompts of a step share one forward pass; known once a runner was opened."""
        from ..inference.slot_model import BatchForward

        return all(isinstance(prepared.forward, BatchForward) for prepared in self._prepared)

    def check(self, params: SamplingParams) -> None:
        vocab_size = getattr(self._model.config.get_text_config(), "vocab_size", None)
        biased = tuple(token_id for token_id, _ in params.logit_bias)
        for name, ids in (("logit_bias", biased), ("allowed_token_ids", params.allowed_token_ids)):
            if ids and vocab_size is not None and max(ids) >= vocab_size:
                raise BadRequest(
                    f"{name} contains token id {max(ids)}; this model has token ids 0 to {vocab_size - 1}"
                )
        if params.grammar is not None:
            self._grammars.matcher(params.grammar)

    def _eos_ids(self) -> frozenset[int]:
        from ..inference.model_runner import eos_ids

        ids = eos_ids(self._model, self._tokenizer)
        return ids if self._turn_end is None else ids | {self._turn_end}

    def _added_turn_end(self) -> int | None:
        """Return the token that ends the template's turns, if the model's files do not count it as an end."""
        from ..inference.model_runner import eos_ids

        turn_end = missing_turn_end(self._tokenizer, eos_ids(self._model, self._tokenizer))
        if turn_end is not None:
            logger.warning(
                "the chat template of %s ends its turns with %s, which is no end token of the model's "
                "generation config: it ends replies from now on",
                self.model_name,
                self._tokenizer.decode([turn_end]),
            )
        return turn_end


def _short_name(name_or_path: str) -> str:
    """Return the hub id or the name of the folder or file, not its path: clients must not see where it is."""
    is_path = os.path.isabs(name_or_path) or os.path.exists(name_or_path)
    name = os.path.basename(os.path.normpath(name_or_path)) if is_path else name_or_path
    return name.removesuffix(".gguf") or "model"


def _max_positions(config: Any) -> int | None:
    """Return the number of positions that the model was trained for, if its config has it."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)
