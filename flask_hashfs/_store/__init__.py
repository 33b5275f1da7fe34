"""What the user holds: one store over a backend."""
