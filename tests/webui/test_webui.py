"""The blueprint of the chat page: addresses, headers, options, and its files."""

from __future__ import annotations

import hashlib
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from chatstream_flask.errors import ConfigError
from chatstream_flask.http.pages import CONTENT_TYPES
from chatstream_flask.webui import WebUIParams, create_webui_blueprint
from chatstream_flask.webui.page import STATIC

VENDOR = STATIC / "vendor"
OWN_FILES = sorted(path for path in STATIC.glob("*") if path.is_file())
TEXT_CONTRAST = 4.5  # WCAG 2.2 AA, 1.4.3
SHAPE_CONTRAST = 3.0  # 1.4.11
CODE_KINDS = ["keyword", "string", "number", "title", "comment", "added", "removed"]
ON_GROUNDS = {  # colours, by those that they stand on
    "text": ["ground", "surface", "sunken", "bubble", "hover", "code"],
    "muted": ["ground", "surface", "bubble", "code", "hover"],
    "accent": ["ground", "surface", "hover"],
    "accent-hover": ["ground"],
    "on-accent": ["accent", "accent-hover"],
    "ground": ["text"],  # the stop button
    "warning-text": ["warning"],
    **{
        f"code-{kind}": ["code"]
        for kind in ["keyword", "string", "number", "title", "comment", "added", "removed"]
    },
}


def client(web_ui_params: dict[str, Any] | None = None, **registration: Any) -> FlaskClient:
    app = Flask("host")
    app.register_blueprint(create_webui_blueprint(web_ui_params), **registration)
    return app.test_client()


def page(web_ui_params: dict[str, Any] | None = None) -> str:
    return client(web_ui_params).get("/").text


def params_in(page: str) -> dict[str, Any]:
    found = re.search(r'data-params="(.*?)"', page)
    assert found
    return dict(json.loads(unescape(found.group(1))))


def links_in(page: str) -> list[str]:
    return re.findall(r'(?:href|src)="([^"#]+)"', page)


# -- addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/", "/chat/", "/a/b/"])
@pytest.mark.parametrize("script_name", ["", "/mounted"])
def test_the_page_and_its_files_work_under_any_prefix(prefix: str, script_name: str) -> None:
    """All links are seen from the page."""
    browser = client(url_prefix=prefix.rstrip("/"))
    environ = {"SCRIPT_NAME": script_name}
    answer = browser.get(prefix, environ_overrides=environ)
    assert answer.status_code == 200
    links = links_in(answer.text)
    assert len(links) >= 5
    for link in links:
        assert not link.startswith("/") and ":" not in link
        with browser.get(prefix + link, environ_overrides=environ) as file:
            assert file.status_code == 200


def test_files_are_kept_by_browsers_until_they_change() -> None:
    browser = client()
    link = next(link for link in links_in(browser.get("/").text) if link.endswith("app.js"))
    with browser.get(link) as first:
        assert first.cache_control.immutable
        assert first.content_type == "text/javascript; charset=utf-8"
        etag, _ = first.get_etag()
    with browser.get(link, headers={"If-None-Match": f'"{etag}"'}) as again:
        assert again.status_code == 304
    with browser.get("/chatstream_ui/0123456789ab/app.js") as of_other_version:
        assert of_other_version.status_code == 200
        assert not of_other_version.cache_control.immutable


@pytest.mark.parametrize("name", ["../page.py", "..%2fpage.py", "no.js", "", "vendor"])
def test_nothing_else_is_served(name: str) -> None:
    assert client().get(f"/chatstream_ui/0/{name}").status_code == 404


def test_every_file_is_served_with_its_type() -> None:
    browser = client()
    for path in STATIC.rglob("*"):
        if path.is_file():
            with browser.get(f"/chatstream_ui/0/{path.relative_to(STATIC).as_posix()}") as answer:
                assert answer.status_code == 200
                assert answer.content_type == CONTENT_TYPES[path.suffix]
                assert answer.headers["X-Content-Type-Options"] == "nosniff"


# -- headers ------------------------------------------------------------------------------------------------


def test_the_page_may_run_its_own_scripts_and_nothing_else() -> None:
    answer = client().get("/")
    policy = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'self'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.cache_control.no_store


def test_the_page_has_no_inline_script_or_style() -> None:
    text = page()
    assert re.findall(r"<script(?![^>]*\ssrc=)", text) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", text) == []


@pytest.mark.parametrize("path", OWN_FILES, ids=lambda path: path.name)
def test_our_files_name_no_other_host(path: Path) -> None:
    addresses = set(re.findall(r"https?://[^\s\"')]+", path.read_text(encoding="utf-8")))
    assert addresses <= {"http://www.w3.org/2000/svg"}


def test_a_host_with_csrf_protection_gives_the_page_its_token() -> None:
    app = Flask("host")
    app.jinja_env.globals["csrf_token"] = lambda: "a<token"
    app.register_blueprint(create_webui_blueprint())
    assert '<meta name="csrf-token" content="a&lt;token">' in app.test_client().get("/").text


# -- the widget ---------------------------------------------------------------------------------------------


def files_loaded_with(name: str) -> set[str]:
    """Return a script and those that it imports before it runs."""
    source = (STATIC / name).read_text(encoding="utf-8")
    imported = re.findall(r'^import .*"\./(\S+)";$', source, re.MULTILINE)
    return {name}.union(*map(files_loaded_with, imported))


def test_a_page_with_the_widget_loads_less_than_40_kb_until_it_is_opened() -> None:
    files = files_loaded_with("widget.js") | {"widget.css", "icons.svg"}
    assert "element.js" in files and "chat.js" not in files
    assert sum((STATIC / name).stat().st_size for name in files) < 40_000


@pytest.mark.parametrize("prefix", ["/", "/chat/"])
def test_the_script_of_the_widget_keeps_its_address_and_names_files_that_change(prefix: str) -> None:
    browser = client({"title": "<Harbour>", "language": "ja"}, url_prefix=prefix.rstrip("/"))
    answer = browser.get(f"{prefix}widget.js")
    assert answer.content_type == "text/javascript; charset=utf-8"
    assert answer.cache_control.no_cache and answer.headers["X-Content-Type-Options"] == "nosniff"
    found = re.fullmatch(
        r'import \{ startWidget \} from "\./(\S+)";\nstartWidget\((\{.*\}), new URL.*\n', answer.text
    )
    assert found
    with browser.get(prefix + found[1]) as file:
        assert file.cache_control.immutable
    options = json.loads(found[2])
    assert (options["title"], options["language"], options["needs_token"]) == ("<Harbour>", "ja", False)


def test_the_widget_knows_that_the_host_has_csrf_protection() -> None:
    app = Flask("host")
    app.jinja_env.globals["csrf_token"] = lambda: "secret"
    app.register_blueprint(create_webui_blueprint())
    script = app.test_client().get("/widget.js").text
    assert '"needs_token": true' in script
    assert "secret" not in script  # pages of any origin may load scripts


def test_the_widget_has_the_colours_of_the_page() -> None:
    styles = (STATIC / "widget.css").read_text(encoding="utf-8")
    pairs = re.findall(r"--[\w-]+, (light-dark\(.*?\))\)", styles)
    assert len(pairs) == 4
    page_styles = (STATIC / "chat.css").read_text(encoding="utf-8")
    assert [pair for pair in pairs if pair not in page_styles] == []


# -- web_ui_params ------------------------------------------------------------------------------------------


def test_texts_of_the_site_reach_the_page() -> None:
    given = {
        "title": {"en": 'A "fine" <b>chat</b>', "ja": "チャット"},
        "greeting": "Good day & welcome",
        "placeholder": "Say it",
        "examples": {"en": ["One", "Two"], "ja": ["一"]},
        "language": "ja",
        "show_settings": False,
        "show_feedback": False,
        "show_model": False,
    }
    text = page(given)
    assert "<b>" not in text
    assert "<title>A &#34;fine&#34; &lt;b&gt;chat&lt;/b&gt;</title>" in text
    assert params_in(text) == given


def test_without_params_the_page_has_words_of_its_own() -> None:
    assert params_in(page()) == {
        "title": "ChatStream",
        "greeting": None,
        "placeholder": None,
        "examples": None,
        "language": None,
        "show_settings": True,
        "show_feedback": True,
        "show_model": True,
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"titel": "x"}, "unknown web_ui_params titel; allowed: examples, greeting"),
        ({"title": ""}, "title must be a non-empty string"),
        ({"title": None}, "title must be a non-empty string"),
        ({"title": {"fr": "Bonjour"}}, "'en', 'ja'"),
        ({"greeting": {}}, "greeting must be a non-empty string"),
        ({"greeting": 3}, "greeting must be a non-empty string, or a dict"),
        ({"examples": "Hello"}, "examples must be a list of non-empty strings"),
        ({"examples": [""]}, "examples must be a list of non-empty strings"),
        ({"language": "de"}, "language must be None, 'en', 'ja', not 'de'"),
        ({"show_settings": 1}, "show_settings must be True or False, not 1"),
        (["title"], "web_ui_params must be a dict"),
    ],
)
def test_a_wrong_param_is_refused_with_a_sentence(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        create_webui_blueprint(given)


def test_examples_may_be_left_out() -> None:
    assert WebUIParams.of({"examples": []}).examples == []


# -- files --------------------------------------------------------------------------------------------------


def test_vendored_files_are_the_ones_that_were_released() -> None:
    """`scripts/vendor_webui.py` fetches them again."""
    pins = json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8"))
    sums = {file["name"]: file["sha256"] for package in pins for file in package["files"]}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.iterdir()
        if path.name != "vendor.json"
    }
    assert found == sums
    assert all(any(file["name"].endswith(".LICENSE") for file in package["files"]) for package in pins)


def test_the_distribution_names_the_licence_of_each_file_in_it() -> None:
    """Only the licence of our own files was named."""
    text = (STATIC.parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    project = dict(re.findall(r"^(license|license-files) = (.*?)(?:  #.*)?$", text, re.MULTILINE))
    named = json.loads(project["license"]).split(" AND ")
    pins = json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8"))
    for package in pins:
        assert set(package["license"].split(" OR ")) & set(named), package["name"]
    kept = {
        path for pattern in json.loads(project["license-files"]) for path in STATIC.parents[2].glob(pattern)
    }
    assert kept == {STATIC.parents[2] / "LICENSE", *VENDOR.glob("*.LICENSE")}


def test_every_word_of_the_page_stands_in_both_languages() -> None:
    source = (STATIC / "i18n.js").read_text(encoding="utf-8")
    words = {
        language: dict(re.findall(r'^    (\w+): "(.*)",$', block, re.MULTILINE))
        for language, block in re.findall(r"^  (en|ja): \{\n(.*?)^  \},$", source, re.MULTILINE | re.DOTALL)
    }
    assert set(words) == {"en", "ja"}
    assert len(words["en"]) > 80
    assert words["en"].keys() == words["ja"].keys()
    for key, text in words["en"].items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", words["ja"][key])), key


def test_no_word_is_missing_and_none_is_left_over() -> None:
    source = (STATIC / "i18n.js").read_text(encoding="utf-8")
    known = set(re.findall(r'^    (\w+): "', source, re.MULTILINE))
    scripts = [path.read_text(encoding="utf-8") for path in OWN_FILES if path.name != "i18n.js"]
    strings = set(re.findall(r'"(\w+)"', "".join(scripts) + page() + source.partition("let language")[2]))
    made = {f"example_{n}" for n in range(1, 5)} | {f"theme_{t}" for t in ("system", "light", "dark")}
    made |= {key for key in known if key.startswith(("settings_", "queue_"))}
    assert known - strings - made == set()
    asked = re.findall(r'word\("(\w+)"|label\(\w+(?:\.\w+)?, "(\w+)"', "".join(scripts))
    in_page = re.findall(r'data-word(?:-\w+)?="(\w+)"', page())
    assert {first or second for first, second in asked} | set(in_page) <= known


# -- colours ------------------------------------------------------------------------------------------------


def colours(scheme: int) -> dict[str, str]:
    """By name; 0 is light, 1 is dark."""
    styles = "".join((STATIC / name).read_text(encoding="utf-8") for name in ("chat.css", "prose.css"))
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", styles)
    return {name: both[scheme] for name, *both in pairs}


def luminance(colour: str) -> float:
    """Return the relative luminance, see https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read(scheme: int) -> None:
    colour = colours(scheme)
    weak = {
        (name, ground): round(contrast(colour[name], colour[ground]), 2)
        for name, grounds in ON_GROUNDS.items()
        for ground in grounds
        if contrast(colour[name], colour[ground]) < TEXT_CONTRAST
    }
    assert weak == {}


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_fields_and_focus_can_be_seen(scheme: int) -> None:
    colour = colours(scheme)
    for name in ("line-strong", "accent"):
        for ground in ("ground", "surface"):
            assert contrast(colour[name], colour[ground]) >= SHAPE_CONTRAST, (name, ground)


def test_contrast_is_computed_as_wcag_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
