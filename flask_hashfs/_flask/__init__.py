"""The Flask half: it carries decisions out."""
