"""The extension for Flask: it carries out what the other rooms decide."""
