"""The part of an extension that Flask and Quart share."""
