"""How a stored file answers a request, decided alike for both frameworks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from flask_hashfs import FlaskHashFS, HashFS
from flask_hashfs._app.config import load
from flask_hashfs._app.serving import Answer, SendOptions, Serving, _redirected_for

SVG = b"<svg xmlns='http://www.w3.org/2000/svg'/>"


@pytest.fixture
def store(tmp_path: Path) -> HashFS:
    return HashFS(str(tmp_path))


def answer(
    store: HashFS,
    path: str = "/",
    options: SendOptions = SendOptions(private=True),  # noqa: B008
    config: dict[str, Any] | None = None,
    file: object = None,
    **request: Any,
) -> Answer:
    """The answer to a request for `path`, whose view sends `file`, or the first one stored."""
    serving = Serving(store, load({"HASHFS_ROOT_FOLDER": store.root, **(config or {})}), {})
    asked = Request(EnvironBuilder(path, **request).get_environ())
    found = serving.open(file or next(iter(store.files())), asked.method)  # type: ignore[arg-type]
    made = serving.answer(found, asked, options)
    made.close()
    return made


def header(made: Answer, name: str) -> str | None:
    return dict(made.plan.headers).get(name)


class TestCaching:
    @pytest.mark.parametrize(
        "path",
        [
            "/files/{id}",
            "/{id}",
            "/{id}.txt",
            "/{id}.html",
            "/{id}/photo.jpg",
            "/static/{relpath}",
            "/{relpath}",
            "/a%20b/%{id_quoted}",
        ],
    )
    def test_a_path_that_names_the_content_never_changes(self, store: HashFS, path: str) -> None:
        address = store.put(b"hello", "txt")
        quoted = f"{ord(address.id[0]):02x}{address.id[1:]}"
        path = path.format(id=address.id, relpath=address.relpath, id_quoted=quoted)
        assert (
            header(answer(store, path), "Cache-Control") == "private, max-age=31536000, immutable"
        )
        hour = SendOptions(max_age=3600)
        assert header(answer(store, path, hour), "Cache-Control") == "max-age=3600, immutable"

    @pytest.mark.parametrize(
        "path",
        [
            "/avatar/ada",
            "/",
            "/avatar?id={id}",
            "/v{id}",
            "/{id}x",
            "/{other}",
            "/{other}/{other}.txt",
            "/{relpath}/x",
            "/x{relpath}",
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_any_other_path_may_mean_another_file_tomorrow(
        self, store: HashFS, path: str, method: str
    ) -> None:
        address = store.put(b"hello", "txt")
        other = store.put(b"another", "txt").id
        path = path.format(id=address.id, relpath=address.relpath, other=other)

        def caching(options: SendOptions, **headers: str) -> str | None:
            made = answer(store, path, options, file=address, method=method, headers=headers)
            assert header(made, "ETag") == f'"{address.id}"'
            return header(made, "Cache-Control")

        assert caching(SendOptions(private=True)) == "private, no-cache"
        assert caching(SendOptions()) == "no-cache"
        assert caching(SendOptions(max_age=60)) == "max-age=60"
        assert caching(SendOptions(max_age=60), If_None_Match=f'"{address.id}"') == "max-age=60"


class TestType:
    @pytest.mark.parametrize(
        "mimetype",
        [
            "image/png",
            "text/csv; header=present",
            'application/x; a="b;\\" c";d=e',
            "TEXT/HTML",
            "image/png;",
        ],
    )
    def test_a_type_may_have_parameters(self, store: HashFS, mimetype: str) -> None:
        store.put(SVG)
        made = answer(store, options=SendOptions(mimetype))
        assert (header(made, "Content-Type") or "").startswith(mimetype)

    @pytest.mark.parametrize(
        "mimetype",
        [
            "image/png,text/html",
            "image/svg+xml,",
            "image/png\r\nX-Injected: 1",
            "image/png; a=\u2028",
            "text/plain; charset=ü",
            "image/*",
            "image",
            "",
            "image/png; a",
            "image/png; a=",
            7,
        ],
    )
    def test_what_is_not_a_type_is_refused(self, mimetype: Any) -> None:
        with pytest.raises(ValueError, match="must be type/subtype"):
            SendOptions(mimetype)

    def test_a_wildcard_never_shows_markup(self, store: HashFS) -> None:
        store.put(SVG)
        for mimetype in ("image/svg+xml", "image/svg+xml; a=b", "IMAGE/SVG+XML"):
            made = answer(store, options=SendOptions(mimetype))
            assert (header(made, "Content-Disposition") or "").startswith("attachment")


class TestOptions:
    def test_only_those_of_the_route_are_the_default(self) -> None:
        assert SendOptions().is_default
        for options in (
            SendOptions("image/png"),
            SendOptions(as_attachment=False),
            SendOptions(download_name="a"),
            SendOptions(max_age=0),
            SendOptions(private=True),
        ):
            assert not options.is_default


def test_a_view_that_asks_for_a_wrong_type_fails(tmp_path: Path) -> None:
    import flask

    app = flask.Flask(__name__)
    app.config.update(HASHFS_ROOT_FOLDER=str(tmp_path), TESTING=True)
    fs = FlaskHashFS(app)
    with app.test_request_context():
        address = fs.put(SVG)
        with pytest.raises(ValueError, match="'image/png,text/html'"):
            fs.send_file(address, mimetype="image/png,text/html")


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        (None, 3600),
        (10**6, 3600),
        (7200, 3600),
        (7199, 2048),
        (60, 16),
        (3, 1),
        (2, 1),
        (1, 0),
        (0, 0),
    ],
)
def test_a_redirect_leads_to_no_url_that_outlives_the_request_s(
    left: int | None, seconds: int
) -> None:
    assert _redirected_for(left) == seconds
    assert left is None or 2 * seconds <= max(left, 0)
