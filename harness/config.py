"""A request as ``bench.toml``, without loss."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.codec import to_data, write_whole
from harness.errors import PlanError
from harness.params import suggest
from harness.plan.values import Request

_KEYS = tuple(field.name for field in dataclasses.fields(Request))


def dump_config(request: Request) -> str:
    """Write a request as TOML; every key is there, so that a later change of a default changes nothing."""
    import tomli_w  # only where a file is written

    data = {key: value for key, value in to_data(request).items() if value is not None}
    return tomli_w.dumps({key: data[key] for key in _KEYS if key in data})


def parse_config(text: str, *, where: str = "bench.toml") -> Request:
    """Read a request from TOML; a key that is left out has its default.

    Raises:
        PlanError: Not TOML, an unknown key (the nearest is suggested), or a value of another type.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"{where} is not valid TOML: {error}") from error
    return _request(data, where)


def _request(data: Mapping[str, Any], where: str) -> Request:
    import msgspec

    unknown = next((key for key in data if key not in _KEYS), None)
    if unknown is not None:
        raise PlanError(f"{where} has the unknown key {unknown!r}", hint=suggest(unknown, _KEYS, "key"))
    values = dict(data)
    if isinstance(values.get("threads"), list):  # counts read naturally as numbers; "all" is a word
        values["threads"] = [str(item) if type(item) is int else item for item in values["threads"]]
    try:
        return msgspec.convert(values, Request)
    except msgspec.ValidationError as error:
        raise PlanError(f"{where} holds a value of the wrong type: {error}") from error


def read_config(path: Path) -> Request:
    """Read ``bench.toml``.

    Raises:
        PlanError: It cannot be read, or ``parse_config`` refuses it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} cannot be read: {error}") from error
    return parse_config(text, where=str(path))


def write_config(path: Path, request: Request) -> None:
    """Write ``bench.toml`` whole."""
    write_whole(path, dump_config(request).encode())
