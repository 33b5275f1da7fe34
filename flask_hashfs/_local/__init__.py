"""The backend that keeps content in a folder."""
