"""Download the JavaScript libraries of the chat page, as pinned in `vendor.json`, and verify their checksums.

`scripts/vendor_webui.py` needs npm. To update a library, change its version in vendor.json and pass
`--record`, which writes the new checksums; then check the licence files and run the page's tests.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).parents[1] / "chatstream_flask/webui/static/vendor"


def fetch(package: dict[str, Any]) -> dict[str, bytes]:
    """Return the listed files of an npm package, by their names in the vendor folder."""
    with tempfile.TemporaryDirectory() as folder:
        spec = f"{package['name']}@{package['version']}"
        command = ["npm", "pack", "--json", "--pack-destination", folder, spec]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as tar:
            return {file["name"]: read(tar, f"package/{file['from']}") for file in package["files"]}


def read(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    if member is None:
        raise SystemExit(f"{name} is not a file in the package")
    return member.read()


def main() -> None:
    is_recording = sys.argv[1:] == ["--record"]
    pins = json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8"))
    for package in pins:
        contents = fetch(package)
        for file in package["files"]:
            content = contents[file["name"]]
            sha256 = hashlib.sha256(content).hexdigest()
            if is_recording:
                file["sha256"] = sha256
            elif sha256 != file["sha256"]:
                raise SystemExit(
                    f"{file['name']} of {package['name']} does not match its checksum in vendor.json"
                )
            (VENDOR / file["name"]).write_bytes(content)
            print(f"{file['name']}: {len(content)} bytes")
    if is_recording:
        text = json.dumps(pins, indent=2) + "\n"
        (VENDOR / "vendor.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
