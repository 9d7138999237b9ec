"""transformers' own server with its continuous batching."""

from __future__ import annotations

import json

from .launch import Launch
from .server import Server


class TransformersServe(Server):
    """`transformers serve --continuous-batching`."""

    model_field = None

    def __init__(self, launch: Launch) -> None:
        super().__init__(launch)
        config = {"eos_token_id": -1, "do_sample": False}
        self.more_fields = {"generation_config": json.dumps(config)}  # it knows no `ignore_eos`

    def command(self, port: int) -> list[str]:
        launch = self.launch
        return [
            *(launch.python, "-m", "transformers.cli.transformers", "serve", launch.settings.model_folder),
            *("--continuous-batching", "--device", launch.settings.device, "--dtype", launch.precision),
            *("--host", "127.0.0.1", "--port", str(port)),
        ]
