"""What may generate the replies of a chat: each of these is a chat to which clients can connect."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from live.nginx import nginx
from live.server import REPOSITORY, Server
from live.threaded_server import served
from redis_server import run_redis
from transformers import AutoTokenizer

from chatstream_flask import ChatStream
from chatstream_flask.client import free_port
from chatstream_flask.demo_model import PATH as DEMO_MODEL
from chatstream_flask.serving.app import create_app

SLOTS, QUEUE = 2, 1
START_SEC = 300.0  # until vLLM answers
CONFIG = {"CHATSTREAM_STORE": "memory://", "CHATSTREAM_COOKIE_SECURE": False, "CHATSTREAM_METRICS": "open"}
THINK = "{% if enable_thinking %}<think>\n{% endif %}"  # any model can be made to reason


@dataclass
class Front:
    """A chat.

    :param url: where its visitors are
    :param node: where its operators are
    :param num_running: requests that its engines have now
    :param verify: file of its certificate
    """

    url: str
    node: str
    has_engines: bool = False
    num_running: Callable[[], int] = lambda: 0
    verify: str | None = None

    def session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.verify = self.verify or True
        return session


def template_of(tokenizer: Any) -> str:
    return str(AutoTokenizer.from_pretrained(tokenizer).chat_template) + THINK


@contextmanager
def chat(tokenizer: Any, engine: list[str] | None, folder: Path) -> Iterator[Front]:
    """Serve a chat of this process, whose replies come from engines or from the demo model here."""
    folder.mkdir()
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.chdir(folder)
        chat_stream = ChatStream.from_pretrained(
            tokenizer,
            engine=engine,
            chat_template=template_of(tokenizer),
            num_of_concurrent_executions=SLOTS,
            max_queue_size=QUEUE,
            max_new_tokens=400,
            context_len=1000,
            too_many_request_as_http_error=True,
        )
        app = create_app(chat_stream, CONFIG, exclude=())
        port = stack.enter_context(served(app))
        stack.callback(chat_stream.close)  # before its port is closed
        url = f"http://127.0.0.1:{port}"
        yield Front(url, url, has_engines=engine is not None)


@contextmanager
def local(folder: Path) -> Iterator[Front]:
    with chat(DEMO_MODEL, None, folder / "chat") as front:
        yield front


@contextmanager
def servers(folder: Path) -> Iterator[Front]:
    """Start two servers of this package."""
    with ExitStack() as stack:
        engines = []
        for _ in range(2):
            stack.enter_context(pytest.MonkeyPatch.context()).chdir(folder)
            chat_stream = ChatStream.from_pretrained(DEMO_MODEL, num_of_concurrent_executions=4)
            app = create_app(chat_stream, CONFIG, exclude=())
            engines.append((chat_stream, f"http://127.0.0.1:{stack.enter_context(served(app))}"))
            stack.callback(chat_stream.close)
        front = stack.enter_context(chat(DEMO_MODEL, [url for _, url in engines], folder / "chat"))
        front.num_running = lambda: sum(chat_stream.engine.num_accepted for chat_stream, _ in engines)
        yield front


@contextmanager
def vllm(folder: Path) -> Iterator[Front]:
    """Start the CPU build of vLLM; `scripts/install_vllm` installs it."""
    python = os.environ.get("CHATSTREAM_VLLM_PYTHON", str(REPOSITORY / ".venv-vllm/bin/python"))
    port = free_port()
    command = [
        *(python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(DEMO_MODEL)),
        *("--served-model-name", "demo", "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", "1024", "--dtype", "float32"),
    ]
    environ = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}  # others share the cores
    with one_engine(command, port, folder, environ) as front:
        front.num_running = lambda: metric(f"http://127.0.0.1:{port}", "vllm:num_requests_running")
        yield front


@contextmanager
def llama_cpp(folder: Path) -> Iterator[Front]:
    """Start llama.cpp's server; `scripts/install bench` installs it."""
    port, gguf = free_port(), folder / "demo.gguf"
    scripts = str(REPOSITORY / "scripts")
    environ = {"PYTHONPATH": os.pathsep.join([scripts, str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    convert = (
        "from benchmark.gguf_file import *; import sys; write_model(*map(Path, sys.argv[1:]), 'float32')"
    )
    subprocess.run(
        [sys.executable, "-c", convert, gguf, DEMO_MODEL], env={**os.environ, **environ}, check=True
    )
    command = [sys.executable, "-m", "benchmark.servers.llama_server_process", str(gguf), str(port)]
    command += [str(SLOTS), "1024", "1"]
    slots = f"http://127.0.0.1:{port}/slots"
    with one_engine(command, port, folder, environ) as front:
        front.num_running = lambda: sum(
            slot["is_processing"] for slot in requests.get(slots, timeout=30).json()
        )
        yield front


@contextmanager
def nodes(folder: Path) -> Iterator[Front]:
    """Start three servers of one app behind nginx, which share a Redis; each has the demo model."""
    template = folder / "template"
    template.write_text(template_of(DEMO_MODEL))
    with ExitStack() as stack:
        redis = run_redis(folder)
        url = f"redis://127.0.0.1:{next(redis)}/0"
        stack.callback(next, redis, None)
        environ = {
            "FLASK_SECRET_KEY": "the same in all servers",
            "FLASK_CHATSTREAM_STORE": url,
            "FLASK_CHATSTREAM_SHARED_REDIS": url,
            "FLASK_CHATSTREAM_METRICS": "open",
        }
        ports = [free_port() for _ in range(3)]
        options = ["--num-of-concurrent-executions", "1", "--max-queue-size", str(QUEUE)]
        options += ["--chat-template", str(template), "--max-new-tokens", "400", "--context-len", "1000"]
        running = []
        for port in ports:
            command = [sys.executable, "-m", "chatstream_flask", "serve", "--port", str(port), *options]
            running.append(stack.enter_context(Server(command, port, folder / str(port), environ)))
        for server in running:
            server.wait_until_ready("/health/ready")
        proxy = stack.enter_context(nginx(folder / "nginx", ports, is_sticky=False))
        proxy.wait_until_ready(None)
        yield Front(
            f"https://127.0.0.1:{proxy.port}",
            f"http://127.0.0.1:{ports[0]}",
            verify=str(folder / "nginx/chat.pem"),
            num_running=lambda: sum(
                metric(f"http://127.0.0.1:{port}", "chatstream_num_requests_running") for port in ports
            ),
        )


@contextmanager
def one_engine(command: list[str], port: int, folder: Path, environ: dict[str, str]) -> Iterator[Front]:
    with Server(command, port, folder / "engine", environ) as server:
        server.wait_until_ready("/health", START_SEC)
        with chat(DEMO_MODEL, [f"http://127.0.0.1:{port}"], folder / "chat") as front:
            yield front


def metric(url: str, name: str) -> int:
    """Return the sum of a gauge over its labels."""
    lines = requests.get(f"{url}/metrics", timeout=30).text.splitlines()
    found = [line for line in lines if line.startswith((name + " ", name + "{"))]
    assert found, f"{url}/metrics has no {name}"
    return int(sum(float(line.split()[-1]) for line in found))


FRONTS = {
    "local": local,
    "servers": servers,
    "vllm": vllm,
    "llama.cpp": llama_cpp,
    "nodes": nodes,
}
