"""Put a user's own calibration, which 'unmask calibrate' made, on top of a model's card."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.errors import ModelError

if TYPE_CHECKING:
    from unmask.card import Card

SCHEMA_VERSION = 1


def calibrated(card: "Card", path: str | Path) -> "Card":
    """The card whose scale and offset include those of the calibration file at ``path``.

    The file's map the card's logits: logit * scale + offset. Raises ModelError when it is missing
    or damaged, or was made for other weights or for another calibration of the same weights.
    """
    path = Path(path)
    again = "make it with 'unmask calibrate MODEL --videos CSV'"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the calibration {path} cannot be read ({error.strerror}): {again}"
        ) from None
    try:
        fields = json.loads(data)
        version = fields["schema_version"]
        model = {"photo_offset": card.photo_offset, **fields["model"]}  # once files had none
        # float() would take true and "2" as well, which nobody meant.
        based_on = [model[name] for name in ("scale", "offset", "photo_offset")]
        numbers = [fields["scale"], fields["offset"], *based_on]
        if not all(type(number) in (int, float) for number in numbers):
            raise ValueError("scale and offset must be numbers")
        scale, offset, *base = map(float, numbers)
        name, sha256 = str(model["name"]), str(model["sha256"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ModelError(f"{path} is no calibration ({error!r}): {again}") from None
    if version != SCHEMA_VERSION:
        raise ModelError(f"{path} is of another version of Unmask ({version}): {again}")
    # A scale below 0 would turn reals into fakes.
    if not (math.isfinite(scale) and scale > 0 and math.isfinite(offset)):
        raise ModelError(f"{path} has an impossible scale or offset: {again}")
    if sha256 != card.sha256:
        raise ModelError(
            f"{path} belongs to another model ({name}, sha256 {sha256[:12]}...), not to "
            f"{card.name} {card.version} ({card.sha256[:12]}...): give that one, or {again}"
        )
    if not all(map(math.isclose, base, (card.scale, card.offset, card.photo_offset))):
        raise ModelError(
            f"{path} was made before the probabilities of {card.name} were calibrated anew: {again}"
        )
    return replace(
        card,
        scale=card.scale * scale,
        offset=card.offset * scale + offset,
        photo_offset=card.photo_offset * scale,
        calibration=hashlib.sha256(data).hexdigest(),
    )
