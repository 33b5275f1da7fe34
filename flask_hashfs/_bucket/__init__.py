"""The backend that keeps content in an object store."""
