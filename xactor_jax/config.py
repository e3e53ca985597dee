"""From nested mappings, of configs and weight files, to the frozen dataclasses of models."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance of the dataclass `cls`, nested dataclasses and tuples included.

    Raises TypeError for a field that `cls` does not have.
    """
    types = typing.get_type_hints(cls)
    fields = {}
    for name, value in values.items():
        kind = types.get(name)
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            value = build(typing.cast(type, kind), value)
        elif isinstance(value, list):
            value = tuple(value)
        fields[name] = value
    return cls(**fields)
