"""load_pretrained: from the name of a model to the arguments of `ChatStream`."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateSyntaxError

from ..config import Dtype, EngineConfig, SamplingParams, Weights, shown
from ..errors import ConfigError
from ..inference.devices import checked_devices
from ..prompts.chat_template import TEMPLATE_ERRORS, apply_chat_template, check_has_template

if TYPE_CHECKING:
    from ..inference.devices import Devices, DtypeLike

# Settings of generation_config.json that are arguments of ChatStream under the same name.
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
REPLY_SHARE = 2  # context_len / max_new_tokens, where neither is given


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Arguments of ChatStream, and where those that were not given come from."""

    options: dict[str, Any]
    origins: dict[str, str]  # argument -> "generation_config" or "context_len"


def load_pretrained(
    name: str | os.PathLike[str],
    given: dict[str, Any],
    *,
    dtype: DtypeLike = "auto",
    weights: str = "auto",
    device: Devices = None,
    revision: str | None = None,
    chat_template: str | None = None,
) -> Pretrained:
    """Load a model, and complete the arguments by what its files say.

    Everything that can be checked without the weights is checked before they are read.

    :param given: arguments of ChatStream; those that are None count as not given
    :raises ConfigError: the model cannot be loaded, or an argument is not allowed
    :raises UnsupportedModel: the model cannot be served
    """
    options = {key: value for key, value in given.items() if value is not None}
    sampling = {field.name for field in fields(SamplingParams)} & options.keys()
    SamplingParams(**{key: options[key] for key in sampling})
    wanted = Dtype(dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch."))
    rounding = Weights(weights)
    devices = checked_devices(device)
    from ..inference.context_room import check_weights_fit, context_that_fits
    from ..inference.loading.load_model import best_device, find_model_files

    devices = devices or [best_device()]
    files = find_model_files(name, revision)
    files.check_weights()
    tokenizer = files.load_tokenizer()
    if chat_template is not None:
        tokenizer.chat_template = checked_template(tokenizer, chat_template)
    if "chat_prompt_clazz" not in options:
        check_has_template(tokenizer)
    skeleton = files.skeleton_of(wanted, devices[0], rounding)
    check_weights_fit(skeleton, devices[0])
    if "context_len" not in options:
        num_running = options.get("num_of_concurrent_executions", EngineConfig.max_running)
        num_slots = options.get("kv_cache_slots", num_running)
        options["context_len"] = context_that_fits(skeleton, -(-num_slots // len(devices)), devices[0])
    model = files.load_weights(wanted, devices[0], rounding)
    origins = add_generation_config(options, model.generation_config)
    options |= {"model": model, "tokenizer": tokenizer, "device": devices}
    return Pretrained(options=options, origins=origins)


def add_generation_config(options: dict[str, Any], config: Any) -> dict[str, str]:
    """Add what the model's authors recommend to the options, and return the origin of what was added.

    :param config: a generation config, or None
    """
    recommended = {name: value for name in SAMPLING if (value := getattr(config, name, None)) is not None}
    if getattr(config, "do_sample", None) is False:
        recommended["temperature"] = 0
    if recommended.get("repetition_penalty") == 1:
        del recommended["repetition_penalty"]  # costs time, changes nothing
    if (length := getattr(config, "max_new_tokens", None)) and length < options["context_len"]:
        recommended["max_new_tokens"] = length
    added = {name: value for name, value in recommended.items() if name not in options}
    origins = dict.fromkeys(added, "generation_config")
    options |= added
    if "max_new_tokens" not in options:
        options["max_new_tokens"] = options["context_len"] // REPLY_SHARE
        origins["max_new_tokens"] = "context_len"
    return origins


def checked_template(tokenizer: Any, template: str) -> str:
    """Return a chat template that can be compiled.

    :raises ConfigError: with the error and its line
    """
    if not isinstance(template, str) or not template.strip():
        raise ConfigError(f"chat_template must be the text of a Jinja template, not {shown(template)}")
    try:
        apply_chat_template(tokenizer, [{"role": "user", "content": "a"}], chat_template=template)
    except TemplateSyntaxError as error:
        raise ConfigError(f"chat_template has an error in line {error.lineno}: {error.message}") from error
    except TEMPLATE_ERRORS:  # it wants other messages
        pass
    return template
