"""Files of older versions: keys that have another name now."""

from __future__ import annotations

from typing import Any

RENAMED = {"num_people": "num_subjects", "dev_num_people": "dev_num_subjects"}  # until 0.1


def upgraded(value: Any) -> Any:
    """A value read from JSON, with today's keys in all its objects."""
    if isinstance(value, dict):
        return {RENAMED.get(name, name): upgraded(item) for name, item in value.items()}
    return [upgraded(item) for item in value] if isinstance(value, list) else value
