"""The gallery on Quart: ``python docs/examples/gallery/quart_app.py``."""

from __future__ import annotations

import asyncio
from os import SEEK_END

import pages
from hypercorn.asyncio import serve
from hypercorn.config import Config
from metadata import Catalog, Item
from quart import Quart, flash, redirect, render_template, request, session, url_for
from quart.utils import run_sync
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException

from flask_hashfs import QuartHashFS


def create_app() -> Quart:
    folder = pages.instance_folder()
    app = Quart(__name__)
    app.config.update(pages.settings(folder))
    app.config.from_prefixed_env()
    pages.prepare(app, "Quart")
    fs = QuartHashFS(app)
    catalog = Catalog(folder / "gallery.sqlite")
    fs.references(catalog.addresses)

    @app.before_request
    async def check_origin():
        pages.refuse_foreign_forms(request)

    @app.after_request
    async def add_headers(response):
        pages.harden(response.headers)
        return response

    @app.errorhandler(HTTPException)
    async def show_trouble(error):
        trouble = pages.trouble(error)
        if pages.wants_json(request):
            return trouble, error.code
        return await render_template("trouble.html", **trouble), error.code

    @app.get("/")
    async def index():
        pages.know_visitor(session)
        before = request.args.get("before", type=int)
        return await render_template("index.html", **await run_sync(pages.index)(catalog, before))

    @app.post("/files")
    async def upload():
        owner = session["owner"] = pages.owner_name((await request.form).get("owner"))
        files = pages.chosen((await request.files).getlist("files"))
        for file in files:
            item = await keep(file, owner)
            await flash(f"{item.name}: {pages.outcome(item)}")
        return redirect(url_for("index"), 303)

    async def keep(file: FileStorage, owner: str) -> Item:
        extension = pages.extension(file.filename)
        address = await fs.put(file, extension)
        size = file.stream.seek(0, SEEK_END)
        item = await run_sync(catalog.add)(pages.new_item(file.filename, size, address, owner))
        if not await fs.exists(address):  # its last other item was deleted in between
            await fs.put(file, extension)
        return item

    @fs.before_upload
    async def allow(upload):
        pages.allow_upload(upload, session, request.args.get("owner"))

    @fs.after_upload
    async def show(upload):
        name, owner = upload.metadata.get("filename"), session.get("owner", "")
        new = pages.new_item(name, upload.length, upload.address, owner)
        item = await run_sync(catalog.add)(new, upload.id)
        if not await fs.exists(upload.address):  # as above; the next request brings it about again
            await run_sync(catalog.remove)(item.id, fs.client.delete)
            raise pages.deleted_meanwhile()
        totals = await run_sync(catalog.totals)()
        return pages.result(item) | {
            "card": await render_template("_card.html", item=item),
            "totals": await render_template("_totals.html", totals=totals),
        }

    @app.get("/files/<int:item_id>")
    async def detail(item_id):
        return await render_template(
            "detail.html", **await run_sync(pages.detail)(catalog, item_id)
        )

    @app.get("/files/<int:item_id>/download")
    async def download(item_id):
        item = await run_sync(catalog.get)(item_id)
        return await fs.send_file(item.address, as_attachment=True, download_name=item.name)

    @app.post("/files/<int:item_id>/delete")
    async def delete(item_id):
        # The item and its file go in one transaction, in one thread: hence the plain client.
        name = await run_sync(catalog.remove)(item_id, fs.client.delete)
        await flash(f"{name}: deleted")
        return redirect(url_for("index"), 303)

    return app


if __name__ == "__main__":
    options = pages.command_line("Quart")
    config = Config.from_mapping(bind=f"{options.host}:{options.port}")
    try:
        asyncio.run(serve(create_app(), config))
    except OSError as error:  # most often another program has the port, which --port evades
        raise SystemExit(f"{config.bind[0]}: {error.strerror}; see --port") from error
