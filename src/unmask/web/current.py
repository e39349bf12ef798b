"""What the application that answers the current request works with."""

from types import SimpleNamespace

from flask import current_app

from unmask.web.services import Services


def settings() -> SimpleNamespace:
    """Its settings."""
    return current_app.config["UNMASK"]


def services() -> Services:
    """Its database, files and queue."""
    return current_app.extensions["unmask"]
