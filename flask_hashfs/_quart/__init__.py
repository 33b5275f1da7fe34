"""The Quart half: it carries decisions out."""
