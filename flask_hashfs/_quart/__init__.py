"""The extension for Quart: it carries out what the other rooms decide."""
