"""The pages of docs/: generated tables are up to date, every API and public name is there, links lead on."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import configuration_tables
import pytest
from flask import Flask
from test_layers import ROOMS

from chatstream_flask import ChatStream
from chatstream_flask.http import server_check
from chatstream_flask.settings import Settings
from chatstream_flask.views import API_NAMES, create_chat_blueprint

DOCS = Path(__file__).parents[2] / "docs"
CONFIGURATION = (DOCS / "configuration.md").read_text(encoding="utf-8")
HTTP_API = (DOCS / "http-api.md").read_text(encoding="utf-8")
API = (DOCS / "api.md").read_text(encoding="utf-8")
PLATFORMS = (DOCS / "platforms.md").read_text(encoding="utf-8")
INDEX = (DOCS / "index.md").read_text(encoding="utf-8")
CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PACKAGES = [  # with the name of the section, where their public names are listed
    *[
        "chatstream_flask",
        "chatstream_flask.views",
        "chatstream_flask.openai_api",
        "chatstream_flask.prompts",
    ],
    *["chatstream_flask.prompts.presets", "chatstream_flask.conversation", "chatstream_flask.serving"],
]


# -- threat-model.md, reliability.md


@pytest.mark.parametrize("name", ["threat-model.md", "reliability.md"])
def test_the_tests_that_a_page_names_exist(name: str) -> None:
    page = (DOCS / name).read_text(encoding="utf-8")
    named = re.findall(r"`(tests/\S+?\.py)(?:::(\w+))?`", page)
    assert len(named) > 20
    missing = [path for path, _ in named if not (DOCS.parent / path).exists()]
    assert missing == []
    texts = {path: (DOCS.parent / path).read_text(encoding="utf-8") for path, _ in named}
    assert [test for path, test in named if test and f"def {test}(" not in texts[path]] == []


# -- configuration.md


def test_the_tables_of_the_configuration_are_up_to_date() -> None:
    assert configuration_tables.updated(CONFIGURATION) == CONFIGURATION, "run scripts/docs"


def defaults_in(page: str, pattern: str) -> dict[str, str]:
    """First and second column, both in backticks, of the rows of the settings' tables."""
    return dict(re.findall(rf"^\| `({pattern})` \| `(.*?)` \|", page, re.MULTILINE))


def test_every_argument_stands_in_the_page_with_its_default() -> None:
    parameters = list(inspect.signature(ChatStream.__init__).parameters.values())[1:]
    assert defaults_in(CONFIGURATION, "[a-z_]+") == {p.name: repr(p.default) for p in parameters}


def test_every_config_key_stands_in_the_page_with_its_default() -> None:
    expected = {f"CHATSTREAM_{field.name.upper()}": repr(field.default) for field in fields(Settings)}
    assert defaults_in(CONFIGURATION, "CHATSTREAM_[A-Z_]+") == expected


# -- http-api.md


def test_every_api_stands_in_the_page_with_its_name() -> None:
    rows = re.findall(r"^\| `((?:GET|POST|PATCH|DELETE) /\S*)` \| `(\w+)` \|", HTTP_API, re.MULTILINE)
    chat_stream = ChatStream(use_mock_response=True)
    assert sorted(rows) == sorted((route, name) for name in API_NAMES for route in routes(chat_stream, name))


def routes(chat_stream: ChatStream, name: str) -> Iterator[str]:
    """Of one API, without files of the page."""
    app = Flask("routes", static_folder=None)
    app.register_blueprint(create_chat_blueprint(chat_stream, include=[name]))
    for rule in app.url_map.iter_rules():
        if not rule.rule.startswith("/chatstream_ui/"):
            (method,) = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            yield f"{method} {rule.rule}"


# -- api.md


def documented(package: str) -> set[str]:
    """Names that the section of a package documents by a directive, or mentions in backticks."""
    heading = re.search(rf"^#+ {re.escape(package)}\n", API, re.MULTILINE)
    assert heading is not None, package
    section = re.split(r"^#+ chatstream_flask", API[heading.end() :], maxsplit=1, flags=re.MULTILINE)[0]
    return set(re.findall(r"^\.\. auto\w+:: (?:\S+\.)?(\w+)$", section, re.MULTILINE)) | set(
        re.findall(r"`(?:\S+\.)?(\w+)`", section)
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_stands_in_the_api_page(package: str) -> None:
    public = set(getattr(importlib.import_module(package), "__all__", ()))
    assert public - documented(package) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_what_the_api_page_documents_is_public(package: str) -> None:
    module = importlib.import_module(package)
    listed = re.findall(
        rf"^\.\. currentmodule:: {re.escape(package)}\n(.*?)^```", API, re.MULTILINE | re.DOTALL
    )
    names = set(re.findall(r"^\.\. auto\w+:: (\w+)$", "".join(listed), re.MULTILINE))
    assert names <= set(getattr(module, "__all__", ()))


# -- all pages


PAGES = pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)


def anchors_of(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", CODE_BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@PAGES
def test_links_lead_somewhere(page: Path) -> None:
    """To files in docs/, so that the site has them, and to headings that exist."""
    for link in re.findall(r"\]\(([^)]+)\)", CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = (DOCS / name) if name else page
            assert target.is_file() and DOCS in target.parents, link
            assert not anchor or anchor in anchors_of(target), link


def test_every_page_is_in_the_table_of_contents() -> None:
    named = set(re.findall(r"^([\w-]+)$", "\n".join(CODE_BLOCK.findall(INDEX)), re.MULTILINE))
    assert named == {page.stem for page in DOCS.glob("*.md")} - {"index"}


# -- architecture.md


def test_the_page_on_architecture_lists_the_rooms_in_their_order() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`.*?) \|", page.partition("## The rooms")[2], re.MULTILINE)
    named = [re.sub(r"/$|\.py$", "", name) for cell in cells for name in re.findall(r"`(.*?)`", cell)]
    assert named == [room for room in ROOMS if not room.startswith("__")]


def test_the_page_on_architecture_names_classes_that_exist() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    (diagram,) = re.findall(r"```\n(.*?)```", page, re.DOTALL)
    package = DOCS.parent / "chatstream_flask"
    source = "\n".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    named = set(re.findall(r"\b[A-Z][a-z]+[A-Z]\w+\b", diagram)) - {"NaN"}
    assert len(named) > 15
    assert {name for name in named if f"class {name}" not in source} == set()


# -- platforms.md


@pytest.mark.parametrize(
    "sentence",
    [
        *[
            "and each would load the model and have a queue of its own",
            "would end the worker again and again",
        ],
        *["runs all requests in one thread", "this server runs the app in several processes"],
        "this server answers one request at a time",
        "the generation threads were started before the server forked its worker",
    ],
)
def test_the_page_on_platforms_quotes_what_servers_are_told(sentence: str) -> None:
    source = re.sub(r'"\s+f?"', "", inspect.getsource(server_check))
    assert sentence in source and sentence in PLATFORMS


def test_the_page_on_platforms_names_the_number_of_threads() -> None:
    config = ChatStream(use_mock_response=True).engine.config
    needed = server_check.num_reply_threads(config) + server_check.SPARE_THREADS
    assert f"at least {needed} threads" in PLATFORMS
    for number in re.findall(r"threads[= ](\d+)", PLATFORMS):
        assert int(number) >= needed or f"threads={number}`, a page waited" in PLATFORMS
