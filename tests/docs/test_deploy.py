"""docs/deploy and docs/operations.md: what can be checked of them without a machine to deploy to."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from chatstream_flask.serving.drain import WRITE_OUT_SEC
from chatstream_flask.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
DEPLOY = DOCS / "deploy"
STOP_SEC = Settings.drain_sec + WRITE_OUT_SEC


def read(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def number_in(pattern: str, text: str) -> float:
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, pattern
    return float(found.group(1))


def test_whatever_ends_a_server_waits_longer_than_its_drain() -> None:
    compose: dict[str, Any] = yaml.safe_load(read("compose.yaml"))
    assert number_in(r"^TimeoutStopSec=(\d+)$", read("chatstream@.service")) > STOP_SEC
    assert number_in(r"^(\d+)s$", compose["services"]["chat"]["stop_grace_period"]) > STOP_SEC
    assert number_in(r"terminationGracePeriodSeconds: (\d+)", (DOCS / "operations.md").read_text()) > STOP_SEC


def test_nginx_takes_and_waits_for_what_the_app_does() -> None:
    conf = read("nginx.conf")
    assert number_in(r"client_max_body_size (\d+)m;", conf) * 2**20 == Settings.max_body_len
    assert number_in(r"proxy_read_timeout (\d+)s;", conf) > Settings.request_timeout_sec


def test_nginx_goes_by_the_cookie_of_the_app() -> None:
    names = re.findall(r'"SESSION_COOKIE_NAME": "(\w+)"', read("app.py"))
    assert names and set(re.findall(r"\$cookie_(\w+)", read("nginx.conf"))) == set(names)


def test_the_compose_files_are_whole() -> None:
    compose: dict[str, Any] = yaml.safe_load(read("compose.yaml"))
    chat = compose["services"]["chat"]
    assert (
        DEPLOY / chat["build"]["context"] / chat["build"]["dockerfile"]
    ).resolve() == DEPLOY / "Dockerfile"
    assert set(chat["depends_on"]) < set(compose["services"])
    assert {
        volume.partition(":")[0] for service in compose["services"].values() for volume in service["volumes"]
    } == set(compose["volumes"])
    assert set(yaml.safe_load(read("compose.gpu.yaml"))["services"]) == {"chat"}


def test_the_compose_file_of_several_servers_is_whole(tmp_path: Path) -> None:
    compose: dict[str, Any] = yaml.safe_load(read("compose.several.yaml"))
    one, services = yaml.safe_load(read("compose.yaml"))["services"], compose["services"]
    assert services["redis"] == one["redis"]
    assert {k: services["chat"][k] for k in ("build", "stop_grace_period")} == {
        k: one["chat"][k] for k in ("build", "stop_grace_period")
    }
    environment = services["chat"]["environment"]
    assert environment["FLASK_CHATSTREAM_SHARED_REDIS"] == environment["FLASK_CHATSTREAM_STORE"]
    site = compose["configs"]["nginx"]["content"].replace("$$", "$")
    settings = re.findall(r"(client_max_body_size|proxy_read_timeout|proxy_next_upstream) ([^;]+);", site)
    assert len(settings) == 3
    assert all(f"{name} {value};" in read("nginx.conf") for name, value in settings)
    check_nginx(tmp_path, site.replace("server chat:", "server 127.0.0.1:").replace("80;", "8080;"))


def check_nginx(folder: Path, site: str) -> None:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed; scripts/test installs it where it can")
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid; error_log stderr warn; events {{}} http {{ access_log off; {site} }}"
    )
    command = [program, "-t", "-q", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_setting_is_known() -> None:
    """FLASK_CHATSTREAM_X, wherever it stands."""
    known = {f"FLASK_CHATSTREAM_{name.upper()}" for name in Settings.__dataclass_fields__}
    for path in [*DEPLOY.iterdir(), DOCS / "operations.md"]:
        used = set(re.findall(r"FLASK_CHATSTREAM_[A-Z_]+[A-Z]", path.read_text(encoding="utf-8")))
        assert used <= known, path


def test_the_dockerfile_has_no_lint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = read("chatstream@.service").replace("/srv/chatstream/.venv/bin/flask", sys.executable)
    (tmp_path / "chatstream@.service").write_text(unit)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "chatstream@.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    about_ours = [line for line in done.stderr.splitlines() if "chatstream" in line]
    assert (done.returncode, about_ours) == (0, [])


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (DOCS / "operations.md").read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (DOCS / link.strip()).exists()] == []
