"""What the application that answers the current request works with."""

from datetime import UTC, datetime
from types import SimpleNamespace

from flask import abort, current_app

from unmask.web.services import Services


def settings() -> SimpleNamespace:
    """Its settings."""
    return current_app.config["UNMASK"]


def services() -> Services:
    """Its database, files and queue."""
    return current_app.extensions["unmask"]


def time_of(text: str | None) -> datetime | None:
    """The time in an address, as lists of jobs have it for the next page. Else status 400."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        abort(400, "'before' is a time such as 2026-01-31T12:00:00Z.")
