"""Content-addressed file storage for Flask and Quart."""
