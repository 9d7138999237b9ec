"""docs/deploy and docs/operations.md: what can be checked of them without a machine to deploy to."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from chatstream_flask.cli.cli import serve
from chatstream_flask.serving.drain import WRITE_OUT_SEC
from chatstream_flask.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
DEPLOY = DOCS / "deploy"
UNITS = ["chatstream@.service", "chatstream-engine@.service"]
STOP_SEC = Settings.drain_sec + WRITE_OUT_SEC


def read(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def number_in(pattern: str, text: str) -> float:
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, pattern
    return float(found.group(1))


def services_of(name: str) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load(read(name))["services"]
    return services


def test_whatever_ends_a_server_waits_longer_than_its_drain() -> None:
    for unit in UNITS:
        assert number_in(r"^TimeoutStopSec=(\d+)$", read(unit)) > STOP_SEC
    for name in ("compose.yaml", "compose.several.yaml", "compose.engines.yaml"):
        ours = [service for service in services_of(name).values() if "build" in service]
        assert ours
        for service in ours:
            assert number_in(r"^(\d+)s$", service["stop_grace_period"]) > STOP_SEC
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


def test_the_engines_of_the_compose_file_are_those_that_the_web_servers_ask() -> None:
    services, several = services_of("compose.engines.yaml"), services_of("compose.several.yaml")
    chat = services.pop("chat")
    assert set(services) == set(chat["depends_on"])
    slots = []
    for engine in services.values():
        assert engine["build"] == several["chat"]["build"]
        options = options_of(engine["command"])
        assert options["host"] == "0.0.0.0"
        slots.append(options["num_of_concurrent_executions"])
        ports = {options["port"], int(number_in(r"http://127.0.0.1:(\d+)/health/ready", read("Dockerfile")))}
        assert len(ports) == 1
    environment = chat["environment"]
    urls = ",".join(f"http://{name}:{port}" for name in services for port in ports)
    assert environment["CHATSTREAM_ENGINE_URLS"] == urls
    running = int(environment["NUM_OF_CONCURRENT_EXECUTIONS"]) * several["chat"]["deploy"]["replicas"]
    assert running == sum(slots)


def test_the_engine_unit_starts_before_the_servers_of_nginx() -> None:
    ports = re.findall(r"server 127.0.0.1:(\d+) ", read("nginx.conf"))
    before = " ".join(f"chatstream@{port}.service" for port in ports)
    assert f"\nBefore={before}\n" in read("chatstream-engine@.service")


def options_of(command: str) -> dict[str, Any]:
    """Return the options of a `serve` command; an unknown one raises click's error."""
    arguments = shlex.split(command.replace("%i", "8001").replace("\\\n", ""), comments=True)
    return serve.make_context("serve", arguments[arguments.index("serve") + 1 :]).params


def test_every_option_is_known() -> None:
    files = [*DEPLOY.iterdir(), DOCS / "operations.md", DOCS / "beyond-one-machine.md"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    commands = re.findall(
        r"(?:flask --app \S+ chatstream|chatstream-flask|-m chatstream_flask) serve (?:.*\\\n)*.*", text
    )
    assert len(commands) >= 4
    for command in commands:
        assert options_of(command)


def test_every_variable_is_read_by_the_app() -> None:
    """Those beside FLASK_CHATSTREAM_X, which `test_every_setting_is_known` looks at."""
    read_by_app = set(re.findall(r'os.environ.get\("(\w+)"', read("app.py")))
    names = set(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", read("chatstream.env"), re.MULTILINE))
    for name in ("compose.yaml", "compose.several.yaml", "compose.engines.yaml"):
        names |= set(services_of(name)["chat"]["environment"])
    ours = {name for name in names if not name.startswith(("FLASK_", "HF_"))}
    assert ours == read_by_app


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
    for path in [*DEPLOY.iterdir(), DOCS / "operations.md", DOCS / "beyond-one-machine.md"]:
        used = set(re.findall(r"FLASK_CHATSTREAM_[A-Z_]+[A-Z]", path.read_text(encoding="utf-8")))
        assert used <= known, path


def test_the_dockerfile_has_no_lint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")
@pytest.mark.parametrize("name", UNITS)
def test_the_unit_is_one_that_systemd_takes(name: str, tmp_path: Path) -> None:
    unit = re.sub(r"/srv/chatstream/.venv/bin/\S+", sys.executable, read(name))
    (tmp_path / name).write_text(unit)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    about_ours = [line for line in done.stderr.splitlines() if "chatstream" in line]
    assert (done.returncode, about_ours) == (0, [])


def test_both_units_have_the_same_sandbox() -> None:
    first, second = (read(name).partition("\nKillMode=")[2] for name in UNITS)
    assert first and first == second


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (DOCS / "operations.md").read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (DOCS / link.strip()).exists()] == []
