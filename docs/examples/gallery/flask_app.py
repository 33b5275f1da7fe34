"""The gallery on Flask: ``python docs/examples/gallery/flask_app.py``."""

from __future__ import annotations

import metadata
import pages
from flask import Flask, flash, redirect, render_template, request, session, url_for
from metadata import Item
from previews import preview
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from werkzeug.exceptions import HTTPException

from flask_hashfs import AUTO, FlaskHashFS, StoredFile


def create_app() -> Flask:
    folder = pages.instance_folder()
    app = Flask(__name__)
    app.config.update(pages.settings(folder))
    app.config.from_prefixed_env()
    fs = FlaskHashFS(app)
    thumbnails = FlaskHashFS(app, name="thumbnails")
    pages.prepare(app, "Flask", fs, thumbnails)

    metadata.create_tables(folder / metadata.FILE)
    engine = create_engine(
        f"sqlite:///{folder / metadata.FILE}", connect_args={"timeout": metadata.PATIENCE}
    )
    database = sessionmaker(engine, expire_on_commit=False)
    fs.track(Item.file, bind=engine)
    thumbnails.track(Item.thumbnail, bind=engine)

    @app.before_request
    def check_origin():
        pages.refuse_foreign_forms(request)

    @app.after_request
    def add_headers(response):
        pages.harden(response.headers)
        return response

    @app.errorhandler(HTTPException)
    def show_trouble(error):
        trouble = pages.trouble(error)
        if pages.wants_json(request):
            return trouble, error.code
        return render_template("trouble.html", **trouble), error.code

    @app.get("/")
    def index():
        pages.know_visitor(session)
        before = request.args.get("before", type=int)
        with database() as rows:
            return render_template("index.html", **pages.index(rows, before))

    @app.post("/files")
    def upload():
        owner = session["owner"] = pages.owner_name(request.form.get("owner"))
        for file in pages.chosen(request.files.getlist("files")):
            item = keep(fs.save(file, AUTO), owner)
            flash(f"{item.name}: {pages.outcome(item)}")
        return redirect(url_for("index"), 303)

    def keep(file: StoredFile, owner: str, upload: str | None = None) -> Item:
        with fs.open(file) as content:
            shown = preview(content, file.content_type)
        small = thumbnails.save(shown.thumbnail, ".webp") if shown.thumbnail else None
        with database.begin() as rows:
            return metadata.add(rows, pages.new_item(file, shown, small, owner), upload)

    @fs.before_upload
    def allow(upload):
        pages.allow_upload(upload, session, request.args.get("owner"))

    @fs.after_upload
    def show(upload):
        file = pages.with_type(upload.stored, fs.type_of(upload.stored))
        item = keep(file, session.get("owner", ""), upload.id)
        with database() as rows:
            totals = metadata.totals(rows)
        return pages.result(item) | {
            "card": render_template("_card.html", item=item),
            "totals": render_template("_totals.html", totals=totals),
        }

    @app.get("/files/<int:item_id>")
    def detail(item_id):
        with database() as rows:
            return render_template("detail.html", **pages.detail(rows, item_id))

    @app.get("/files/<int:item_id>/download")
    def download(item_id):
        with database() as rows:
            file = metadata.get(rows, item_id).file
        return redirect(fs.url_for(file, external=False, **pages.download(file)))

    @app.post("/files/<int:item_id>/delete")
    def delete(item_id):
        with database.begin() as rows:
            name = metadata.remove(rows, item_id)
        flash(f"{name}: deleted")
        return redirect(url_for("index"), 303)

    return app


if __name__ == "__main__":
    options = pages.command_line("Flask")
    create_app().run(options.host, options.port)
