"""Decisions about HTTP: bytes and headers come in, values go out; it touches no file or socket."""
