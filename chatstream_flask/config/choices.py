"""Settings that are one of a few words."""

from __future__ import annotations

from enum import Enum

from ..errors import ConfigError
from .checks import shown


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
