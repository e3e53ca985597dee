"""From nested mappings, of configs and weight files, to the frozen dataclasses of models."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from xactor_jax.errors import InputError

T = TypeVar("T")

TRAINING_ONLY = ("scan", "rematerialise", "dtype")  # how networks are computed, not what


class ConfigError(InputError, TypeError, ValueError):
    """A mapping that is no config of its class: an unknown field, or a value that cannot be."""


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance of the dataclass `cls`, nested dataclasses and tuples included.

    Where a field may hold one of several dataclasses, its values name one by their `kind`; without
    it, as in weights files from before there was a choice, it is the first.
    Raises ConfigError for a field that `cls` does not have or refuses, and for an unknown kind.
    """
    hints = typing.get_type_hints(cls)
    fields = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and (nested := _dataclass(hints.get(name), value)):
            value = build(nested, value)
        elif isinstance(value, list):
            value = tuple(value)
        fields[name] = value
    try:
        return cls(**fields)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{cls.__name__}: {error}") from error


def released(config: Any) -> dict[str, Any]:
    """The fields of a dataclass as a weights file holds them: without what only training needs."""
    return {
        field.name: released(value) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(config)
        if field.name not in TRAINING_ONLY
        for value in (getattr(config, field.name),)
    }


def _dataclass(hint: Any, values: Mapping[str, Any]) -> Any:
    """The dataclass among the types of a field that its values are for; None where none is."""
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    choices = [member for member in members if dataclasses.is_dataclass(member)]
    if len(choices) < 2:
        return choices[0] if choices else None
    kinds = {choice.kind: choice for choice in choices}
    kind = values.get("kind", choices[0].kind)
    if kind not in kinds:
        raise ConfigError(f"kind {kind!r}: use {' or '.join(kinds)}")
    return kinds[kind]
