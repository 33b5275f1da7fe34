"""A typed app, which mypy and pyright check: each line marked with "error" must be one."""

# ruff: noqa: B018

from __future__ import annotations

import io
from pathlib import Path
from typing import assert_type

from flask import Flask, Response, request
from quart import Quart
from quart import request as quart_request

from flask_hashfs import FlaskHashFS, HashAddress, HashFS, QuartHashFS

app = Flask(__name__)
fs = FlaskHashFS(app)


@app.post("/")
def upload() -> dict[str, str]:
    address = fs.put(request.files["photo"], "jpg")
    assert_type(address, HashAddress)
    assert_type(address.id, str)
    assert_type(address.relpath, str)
    assert_type(address.abspath, str)
    assert_type(address.is_duplicate, bool)
    for source in (b"bytes", bytearray(), Path("file"), "file", io.BytesIO(), io.StringIO()):
        fs.put(source)
    fs.put(request.stream, expected=fs.expected_digest(request.headers, required=True))
    fs.put(iter([b"a", b"b"]))
    return {"id": address.id, "url": fs.url_for(address)}


@app.get("/<id>")
def download(id: str) -> Response:
    return fs.send_file(id, mimetype="image/png", max_age=60)


def look(id: str) -> None:
    found = fs.get(id)
    assert_type(found, HashAddress | None)
    with fs.open(id) as binary, fs.open(id, "r") as text, fs.open(id, "rb") as again:
        assert_type(binary, io.BufferedReader)
        assert_type(again, io.BufferedReader)
        assert_type(text, io.TextIOWrapper)
    assert_type(fs.client, HashFS)
    assert_type(fs.count(), int)
    with fs.client.open(id) as file:
        assert_type(file, io.BufferedReader)


def mistakes() -> None:
    fs.put(5)  # error
    fs.nonsense  # error
    fs.put(b"a").nonsense  # error
    fs.get(5)  # error
    fs.client.nonsense  # error
    fs.open("a").nonsense  # error
    fs.open("a", "r").read().decode()  # error
    fs.send_file("a", mimetype=5)  # error


quart_app = Quart(__name__)
quart_fs = QuartHashFS(quart_app)


async def quart_upload() -> None:
    address = await quart_fs.put(quart_request.body, "jpg")
    assert_type(address, HashAddress)
    assert_type((await (await quart_fs.open(address)).read()), bytes)
    assert_type((await (await quart_fs.open(address, "r")).read()), str)
    async with quart_fs.open(address) as file:
        assert_type(await file.read(), bytes)
    async with quart_fs.open(address, "rt") as text:
        assert_type(await text.read(), str)
    async for entry in quart_fs.entries():
        assert_type(entry.relpath, str)


async def quart_mistakes() -> None:
    await quart_fs.put(5)  # error
    quart_fs.nonsense  # error
    (await quart_fs.put(b"a")).nonsense  # error
    quart_fs.put(b"a").id  # error
    await quart_fs.get(5)  # error
