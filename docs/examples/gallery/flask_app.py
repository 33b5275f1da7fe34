"""The gallery on Flask: ``python docs/examples/gallery/flask_app.py``."""

from __future__ import annotations

from os import SEEK_END

import pages
from flask import Flask, flash, redirect, render_template, request, session, url_for
from metadata import Catalog, Item
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException

from flask_hashfs import FlaskHashFS


def create_app() -> Flask:
    folder = pages.instance_folder()
    app = Flask(__name__)
    app.config.update(pages.settings(folder))
    app.config.from_prefixed_env()
    pages.prepare(app, "Flask")
    fs = FlaskHashFS(app)
    catalog = Catalog(folder / "gallery.sqlite")
    fs.references(catalog.addresses)

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
        return render_template("index.html", **pages.index(catalog, before))

    @app.post("/files")
    def upload():
        owner = session["owner"] = pages.owner_name(request.form.get("owner"))
        files = pages.chosen(request.files.getlist("files"))
        for file in files:
            item = keep(file, owner)
            flash(f"{item.name}: {pages.outcome(item)}")
        return redirect(url_for("index"), 303)

    def keep(file: FileStorage, owner: str) -> Item:
        extension = pages.extension(file.filename)
        address = fs.put(file, extension)
        size = file.stream.seek(0, SEEK_END)
        item = catalog.add(pages.new_item(file.filename, size, address, owner))
        if not fs.exists(address):  # its last other item was deleted between these two lines
            fs.put(file, extension)
        return item

    @fs.before_upload
    def allow(upload):
        pages.allow_upload(upload, session, request.args.get("owner"))

    @fs.after_upload
    def show(upload):
        name, owner = upload.metadata.get("filename"), session.get("owner", "")
        new = pages.new_item(name, upload.length, upload.address, owner)
        item = catalog.add(new, upload.id)
        if not fs.exists(upload.address):  # as above; the next request brings about the end again
            catalog.remove(item.id, fs.delete)
            raise pages.deleted_meanwhile()
        return pages.result(item) | {
            "card": render_template("_card.html", item=item),
            "totals": render_template("_totals.html", totals=catalog.totals()),
        }

    @app.get("/files/<int:item_id>")
    def detail(item_id):
        return render_template("detail.html", **pages.detail(catalog, item_id))

    @app.get("/files/<int:item_id>/download")
    def download(item_id):
        item = catalog.get(item_id)
        return fs.send_file(item.address, as_attachment=True, download_name=item.name)

    @app.post("/files/<int:item_id>/delete")
    def delete(item_id):
        name = catalog.remove(item_id, fs.delete)
        flash(f"{name}: deleted")
        return redirect(url_for("index"), 303)

    return app


if __name__ == "__main__":
    options = pages.command_line("Flask")
    create_app().run(options.host, options.port)
