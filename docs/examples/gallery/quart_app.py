"""The gallery on Quart: ``python docs/examples/gallery/quart_app.py``."""

from __future__ import annotations

import asyncio

import metadata
import pages
from hypercorn.asyncio import serve
from hypercorn.config import Config
from metadata import Item
from previews import preview
from quart import Quart, flash, redirect, render_template, request, session, url_for
from quart.utils import run_sync
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from werkzeug.exceptions import HTTPException

from flask_hashfs import AUTO, QuartHashFS, StoredFile


def create_app() -> Quart:
    folder = pages.instance_folder()
    app = Quart(__name__)
    app.config.update(pages.settings(folder))
    app.config.from_prefixed_env()
    fs = QuartHashFS(app)
    thumbnails = QuartHashFS(app, name="thumbnails")
    pages.prepare(app, "Quart", fs, thumbnails)

    metadata.create_tables(folder / metadata.FILE)
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{folder / metadata.FILE}",
        connect_args={"timeout": metadata.PATIENCE},
        poolclass=NullPool,  # a connection that is kept has a thread that outlives the app
    )
    database = async_sessionmaker(engine, expire_on_commit=False)
    fs.track(Item.file, bind=engine)
    thumbnails.track(Item.thumbnail, bind=engine)

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
        async with database() as rows:
            found = await rows.run_sync(pages.index, before)
        return await render_template("index.html", **found)

    @app.post("/files")
    async def upload():
        owner = session["owner"] = pages.owner_name((await request.form).get("owner"))
        for file in pages.chosen((await request.files).getlist("files")):
            item = await keep(await fs.save(file, AUTO), owner)
            await flash(f"{item.name}: {pages.outcome(item)}")
        return redirect(url_for("index"), 303)

    async def keep(file: StoredFile, owner: str, upload: str | None = None) -> Item:
        shown = await run_sync(look_at)(file)
        small = await thumbnails.save(shown.thumbnail, ".webp") if shown.thumbnail else None
        item = pages.new_item(file, shown, small, owner)
        async with database.begin() as rows:
            return await rows.run_sync(metadata.add, item, upload)

    def look_at(file: StoredFile):
        with fs.client.open(file) as content:
            return preview(content, file.content_type)

    @fs.before_upload
    async def allow(upload):
        pages.allow_upload(upload, session, request.args.get("owner"))

    @fs.after_upload
    async def show(upload):
        file = pages.with_type(upload.stored, await fs.type_of(upload.stored))
        item = await keep(file, session.get("owner", ""), upload.id)
        async with database() as rows:
            totals = await rows.run_sync(metadata.totals)
        return pages.result(item) | {
            "card": await render_template("_card.html", item=item),
            "totals": await render_template("_totals.html", totals=totals),
        }

    @app.get("/files/<int:item_id>")
    async def detail(item_id):
        async with database() as rows:
            found = await rows.run_sync(pages.detail, item_id)
        return await render_template("detail.html", **found)

    @app.get("/files/<int:item_id>/download")
    async def download(item_id):
        async with database() as rows:
            file = (await rows.run_sync(metadata.get, item_id)).file
        return redirect(fs.url_for(file, external=False, **pages.download(file)))

    @app.post("/files/<int:item_id>/delete")
    async def delete(item_id):
        async with database.begin() as rows:
            name = await rows.run_sync(metadata.remove, item_id)
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
