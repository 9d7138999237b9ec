"""This project: the command `serve`."""

from __future__ import annotations

from .server import MODEL_NAME, Server

GGUF_PRECISIONS = ("q8_0", "q4")


class Chatstream(Server):
    """`serve` under waitress, as users start it; packed weights come from a GGUF file."""

    devices = ("cpu", "cuda")
    ready_path = "/health/ready"

    def command(self, port: int) -> list[str]:
        launch = self.launch
        if launch.precision in GGUF_PRECISIONS:
            assert launch.gguf is not None
            model = ["--model", launch.gguf]
        else:
            model = ["--model", launch.settings.model_folder, "--dtype", launch.precision]
        return [
            *(launch.python, "-m", "chatstream_flask", "serve", *model, "--model-name", MODEL_NAME),
            *(
                "--device",
                launch.settings.device,
                "--port",
                str(port),
                "--context-len",
                str(launch.context_len),
            ),
            *("--num-of-concurrent-executions", str(launch.slots), "--max-queue-size", str(launch.slots)),
            *(
                ["--num-of-generation-threads", str(launch.settings.threads)]
                if launch.settings.threads
                else []
            ),
        ]
