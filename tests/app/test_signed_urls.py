"""URLs that end: who may fetch, what is answered and what caches may keep, in both frameworks."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from asgi import Exchange
from both_apps import FRAMEWORKS, Site
from flask import Flask
from itsdangerous import URLSafeSerializer

from flask_hashfs import FlaskHashFS
from flask_hashfs._http.signing import Grant, token

pytestmark = pytest.mark.decided_once

HOUR = timedelta(hours=1)
CONTENT = b"private " * 100


STORES = ["folder", "bucket", "cached bucket"]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The settings of a store."""
    if request.param == "folder":
        return {"HASHFS_ROOT_FOLDER": str(tmp_path / "root")}
    pytest.importorskip("obstore")
    settings: dict[str, Any] = {"HASHFS_ROOT_FOLDER": f"memory://{uuid.uuid4().hex}"}
    if request.param == "cached bucket":
        settings |= {"HASHFS_CACHE_FOLDER": str(tmp_path / "cache")}
    return settings


@pytest.fixture(params=FRAMEWORKS)
def new_site(request: pytest.FixtureRequest, store: dict[str, Any]) -> Callable[..., Site]:
    def new(*names: str, **config: Any) -> Site:
        settings = {
            "SECRET_KEY": "secret",
            **store,
            "HASHFS_PATH_PREFIX": "/files",
            "HASHFS_SERVE_FILES": "signed",
        }
        for name in names:
            settings |= {
                key.replace("HASHFS_", f"HASHFS_{name.upper()}_"): settings[key]
                for key in settings
                if key.startswith("HASHFS_")
            }
            settings[f"HASHFS_{name.upper()}_PATH_PREFIX"] = f"/{name}"
            settings.pop(f"HASHFS_{name.upper()}_CACHE_FOLDER", None)
        return Site(request.param, settings | config, names)

    return new


@pytest.fixture
def site(new_site: Callable[..., Site]) -> Site:
    return new_site()


@pytest.fixture
def url(site: Site) -> str:
    return site.url_for(site.put(CONTENT, "txt"), external=False, expires=HOUR)


def max_age(header: str) -> int:
    [seconds] = re.findall(r"max-age=(\d+)", header)
    return int(seconds)


# -- who may fetch -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_signed_url_answers_and_the_bare_one_does_not(site: Site, url: str) -> None:
    assert site.ask(url).body == CONTENT
    bare = site.ask(url.partition("?")[0])
    assert bare.status == 403
    assert site.ask(site.url_for(site.put(CONTENT), external=False)).status == 403


def test_an_id_can_be_signed_as_well_as_a_path(site: Site) -> None:
    address = site.put(CONTENT, "txt")
    for file in (address.id, address.relpath, "/" + address.relpath, address):
        assert site.ask(site.url_for(file, external=False, expires=60)).body == CONTENT


@pytest.mark.slow
def test_a_token_broken_at_any_position_is_refused_alike(site: Site, url: str) -> None:
    path, _, query = url.partition("?token=")
    refused = site.ask(path)
    for at in range(len(query)):
        other = "A" if query[at] != "A" else "B"
        reply = site.ask(f"{path}?token={query[:at]}{other}{query[at + 1 :]}")
        assert (reply.status, reply.body) == (403, refused.body)


def test_bytes_that_are_not_utf_8_are_no_token(tmp_path: Path) -> None:
    app = Flask(__name__)
    app.config |= {"SECRET_KEY": "secret", "HASHFS_ROOT_FOLDER": str(tmp_path)}
    app.config |= {"HASHFS_PATH_PREFIX": "/files", "HASHFS_SERVE_FILES": "signed"}
    FlaskHashFS(app)
    for query in ("token=\xe9", "a=\xe9"):  # Quart refuses them before any route
        answer = app.test_client().get("/files/x", environ_overrides={"QUERY_STRING": query})
        assert answer.status_code == 403


def test_nothing_tells_stored_files_from_unknown_ones(site: Site, url: str) -> None:
    stored, _, query = url.partition("?token=")
    unknown = "/files/" + "0" * 64
    tokens = ["", "?token=", "?token=x", f"?token={query}x", f"?token={query}&token={query}"]
    replies = [site.ask(path + more) for path in (stored, unknown, "/files/x") for more in tokens]
    replies.append(site.ask(f"{unknown}?token={query}"))
    assert {reply.status for reply in replies} == {403}
    assert len({(reply.body, str(sorted(reply.headers))) for reply in replies}) == 1


def test_the_store_is_not_asked_without_a_token(
    site: Site, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the store was asked")

    for name in ("open_content", "open_cached", "get"):
        target = getattr(site.client, "backend", site.client)
        if hasattr(target, name):
            monkeypatch.setattr(type(target), name, asked)
    assert site.ask(url.partition("?")[0]).status == 403


def test_a_file_that_is_gone_is_not_found(site: Site, url: str) -> None:
    site.call(site.fs.delete, urlsplit(url).path.removeprefix("/files/"))
    assert site.ask(url).status == 404


def test_a_token_is_of_one_store(new_site: Callable[..., Site]) -> None:
    site = new_site("avatars")
    address = site.put(CONTENT, "txt")
    assert site.call(site.stores["avatars"].put, CONTENT, "txt").relpath == address.relpath
    url = site.url_for(address, external=False, expires=60)
    assert site.ask(url).status == 200
    assert site.ask(url.replace("/files/", "/avatars/")).status == 403
    other = site.call(site.stores["avatars"].url_for, address, False, expires=60)
    assert site.ask(other).body == CONTENT


def test_a_token_of_another_app_is_refused(new_site: Callable[..., Site], url: str) -> None:
    assert new_site(SECRET_KEY="other").ask(url).status == 403
    assert new_site(SECRET_KEY=None).ask(url).status == 403


def test_keys_are_changed_one_after_the_other(new_site: Callable[..., Site], url: str) -> None:
    rotated = new_site(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["older", "secret"])
    rotated.put(CONTENT, "txt")
    assert rotated.ask(url).status == 200
    path = urlsplit(url).path.removeprefix("/files/")
    renewed = rotated.url_for(path, external=False, expires=60)
    rotated.app.config["SECRET_KEY_FALLBACKS"] = None
    assert rotated.ask(renewed).status == 200
    assert rotated.ask(url).status == 403
    assert new_site().ask(renewed).status == 403


def test_an_expired_token_is_refused(site: Site, url: str) -> None:
    path = urlsplit(url).path
    grant = Grant(int(time.time()) - 1)
    expired = token(["secret"], "", path.removeprefix("/files/"), grant)
    assert site.ask(f"{path}?token={expired}").status == 403


# -- what is answered --------------------------------------------------------------------------


def test_name_and_disposition_are_part_of_it(site: Site) -> None:
    address = site.put(CONTENT, "txt")
    sign = {"external": False, "expires": HOUR}
    named = site.ask(site.url_for(address, download_name="Grüße.txt", as_attachment=True, **sign))
    assert named.headers["Content-Disposition"].startswith("attachment")
    assert "Gr%C3%BC%C3%9Fe.txt" in named.headers["Content-Disposition"]
    shown = site.ask(site.url_for(address, as_attachment=False, **sign))
    assert shown.headers["Content-Disposition"].startswith("inline")
    stored = site.put(b"<html>", "html")
    download = site.ask(site.url_for(stored, **sign))
    assert download.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("HEAD", {}, 200),
        ("GET", {"Range": "bytes=0-9"}, 206),
        ("GET", {"Range": "bytes=0-1,5-6"}, 206),
        ("GET", {"If-None-Match": "*"}, 304),
    ],
)
@pytest.mark.parametrize("expires", [2, 60, 3600, 10**9])
def test_no_cache_outlives_the_signature(
    site: Site, method: str, headers: dict[str, str], status: int, expires: int
) -> None:
    url = site.url_for(site.put(CONTENT, "txt"), external=False, expires=expires)
    [text] = parse_qs(urlsplit(url).query)["token"]
    end = URLSafeSerializer("").load_payload(text.rpartition(".")[0].encode())[0]
    before = int(time.time())
    reply = site.ask(url, method, headers)
    caching = reply.headers["Cache-Control"]
    assert reply.status == status
    assert "immutable" not in caching
    assert max_age(caching) <= min(31536000, end - before)
    assert max_age(caching) >= min(31536000, expires) - (int(time.time()) - before) - 2


def test_a_shorter_max_age_of_the_app_holds(new_site: Callable[..., Site]) -> None:
    site = new_site(HASHFS_MAX_AGE=30)
    url = site.url_for(site.put(CONTENT, "txt"), external=False, expires=HOUR)
    assert site.ask(url).headers["Cache-Control"] == "max-age=30"


def test_errors_carry_no_caching(site: Site, url: str) -> None:
    for headers in ({"If-Match": '"x"'}, {"Range": "bytes=99999-"}):
        assert "Cache-Control" not in site.ask(url, headers=headers).headers


def test_the_server_in_front_may_send_it(new_site: Callable[..., Site]) -> None:
    site = new_site(HASHFS_ACCEL_REDIRECT="/protected/")
    url = site.url_for(site.put(CONTENT, "txt"), external=False, expires=60)
    reply = site.ask(url)
    assert reply.headers["X-Accel-Redirect"].startswith("/protected/")
    assert max_age(reply.headers["Cache-Control"]) <= 75
    assert site.ask(url.partition("?")[0]).status == 403


def test_a_server_that_opens_the_file_itself_may_send_it(tmp_path: Path) -> None:
    settings = {
        "SECRET_KEY": "secret",
        "HASHFS_ROOT_FOLDER": str(tmp_path),
        "HASHFS_PATH_PREFIX": "/files",
        "HASHFS_SERVE_FILES": "signed",
    }
    flask = Site("flask", settings | {"USE_X_SENDFILE": True})
    address = flask.put(CONTENT, "txt")
    url = flask.url_for(address, external=False, expires=60)
    reply = flask.ask(url)
    assert reply.headers["X-Sendfile"] == address.abspath
    assert max_age(reply.headers["Cache-Control"]) <= 75
    assert "X-Sendfile" not in flask.ask(url.partition("?")[0]).headers

    quart = Site("quart", settings)
    url = quart.url_for(address, external=False, expires=60)
    refused = quart.call(sent_by_pathsend, quart.app, url.partition("?")[0])
    assert refused[0]["status"] == 403
    start, path = quart.call(sent_by_pathsend, quart.app, url)
    assert start["status"] == 200
    assert max_age(dict(start["headers"])[b"cache-control"].decode()) <= 75
    assert path == {"type": "http.response.pathsend", "path": address.abspath}


async def sent_by_pathsend(app: Any, target: str) -> list[dict[str, Any]]:
    """What an app sends to a server that can send whole files by their path."""
    offer: dict[str, dict[object, object]] = {"http.response.pathsend": {}}
    async with Exchange(app, target, method="GET", extensions=offer) as exchange:
        await exchange.finish()
    return exchange.sent


def test_a_cdn_may_stand_in_front(new_site: Callable[..., Site]) -> None:
    site = new_site(HASHFS_HOST="https://cdn.example.com")
    url = site.url_for(site.put(CONTENT, "txt"), expires=60)
    assert url.startswith("https://cdn.example.com/files/")
    parts = urlsplit(url)
    assert site.ask(f"{parts.path}?{parts.query}").body == CONTENT


def test_templates_can_sign(site: Site) -> None:
    address = site.put(CONTENT, "txt")
    template = "{{ hashfs_url_for(file, external=False, expires=60, download_name='a') }}"
    if site.is_quart:
        from quart import render_template_string
    else:
        from flask import render_template_string  # type: ignore[assignment]
    url = site.call(render_template_string, template, file=address)
    assert site.ask(url).headers["Content-Disposition"].endswith('"a"')


# -- making URLs -------------------------------------------------------------------------------


def test_a_file_has_the_same_url_for_a_while(site: Site) -> None:
    urls = {site.url_for("a", external=False, expires=10**6) for _ in range(5)}
    assert len(urls) == 1
    assert list(parse_qs(urlsplit(urls.pop()).query)) == ["token"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"expires": 0}, ValueError, "more than nothing"),
        ({"expires": timedelta(seconds=-1)}, ValueError, "more than nothing"),
        ({"expires": "60"}, TypeError, "timedelta"),
        ({"expires": True}, TypeError, "timedelta"),
        ({"expires": 1.5}, TypeError, "timedelta"),
        ({"download_name": "a"}, ValueError, "expires"),
        ({"as_attachment": False}, ValueError, "expires"),
        ({"expires": 60, "download_name": 3}, TypeError, "download_name"),
        ({"expires": 60, "as_attachment": "no"}, TypeError, "as_attachment"),
    ],
)
def test_what_cannot_be_signed_is_refused(
    site: Site, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        site.url_for("a", **arguments)


@pytest.mark.parametrize("serve", [True, False])
def test_an_end_that_nobody_would_check_is_refused(
    new_site: Callable[..., Site], serve: bool
) -> None:
    with pytest.raises(ValueError, match="HASHFS_SERVE_FILES"):
        new_site(HASHFS_SERVE_FILES=serve).url_for("a", expires=60)


def test_without_a_secret_key_nothing_is_signed(new_site: Callable[..., Site]) -> None:
    with pytest.raises(RuntimeError, match="SECRET_KEY"):
        new_site(SECRET_KEY=None).url_for("a", expires=60)


def test_a_public_route_stays_public(new_site: Callable[..., Site]) -> None:
    site = new_site(HASHFS_SERVE_FILES=True)
    url = site.url_for(site.put(CONTENT, "txt"), external=False)
    assert site.ask(url).headers["Cache-Control"] == "max-age=31536000, immutable"
