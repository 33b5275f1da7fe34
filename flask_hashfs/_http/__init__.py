"""Decisions about HTTP: bytes and headers in, values out; no file, no socket, no framework."""
