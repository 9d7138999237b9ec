"""What Flask apps commonly do: `model.generate` with a streamer, in a thread per request."""

from __future__ import annotations

from .server import Server


class Generate(Server):
    """A Flask app under waitress that calls `model.generate` for each request."""

    devices = ("cpu", "cuda")

    def command(self, port: int) -> list[str]:
        launch = self.launch
        return [
            *(
                launch.python,
                "-m",
                "benchmark.servers.generate_app",
                launch.settings.model_folder,
                launch.precision,
            ),
            *(launch.settings.device, str(port), str(launch.slots)),
        ]
