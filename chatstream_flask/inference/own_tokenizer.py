"""own_tokenizer: copy the host's tokenizer, so that a setting of one does not change the other."""

from __future__ import annotations

import copy
from typing import Any


def own_tokenizer(tokenizer: Any) -> Any:
    """Return a copy that encodes whole texts and that many threads may use at once.

    A tokenizer of transformers keeps the truncation and the padding of the last call in its backend, so a
    call with `truncation=True` in the host's code would cut prompts that are encoded meanwhile. A call that
    finds the settings it needs changes nothing, so they are set here once.
    """
    own = copy.deepcopy(tokenizer)
    backend = getattr(own, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    return own
