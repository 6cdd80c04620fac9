"""Keys of steps: a hash of all that can change what a step writes, and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import harness
from harness import codec
from harness.build import cache, versions
from harness.codec import content_sha256
from harness.errors import PluginError
from harness.types import Capabilities, Model, Options, Precision

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.plugins import Registry
    from harness.specs import Offer


@dataclass(frozen=True)
class Source:
    """A plugin's code as it is in the interpreter that runs the step."""

    version: str
    sha256: str
    packages: Mapping[str, str]


def source_of(offer: Offer[Any], registry: Registry, packages: tuple[str, ...]) -> Source:
    """Return the identity of an offer's code and of these distributions, in this interpreter."""
    module = next((info.module for info in registry.plugins if info.name == offer.plugin), "")
    digest = versions.source_sha256(module) if module else offer.source_sha256
    return Source(offer.version, digest, versions.versions(packages))


def libraries(offer: Offer[Any]) -> tuple[str, ...]:
    """Return the distributions whose versions a build step of this offer depends on."""
    core = versions.required("compression-harness")
    own = [name for name in versions.required(offer.distribution) if name not in core]
    extra = getattr(offer.spec, "extra", "")
    by_extra = versions.required("compression-harness", extra) if extra else ()
    return tuple(sorted({*versions.LIBRARIES, *own, *by_extra} - {"compression-harness"}))


def base(stage: str, source: Source, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every key holds."""
    return {
        "schema": cache.SCHEMA,
        "stage": stage,
        "harness": harness.__version__,
        "name": name,
        "params": dict(params),
        "plugin": {"version": source.version, "source": source.sha256},
        "packages": dict(source.packages),
    }


def key_of(inputs: Mapping[str, Any]) -> str:
    """Hash the inputs of a step."""
    return codec.sha256(inputs)


def file_inputs(model: Model, sha256: str) -> dict[str, Any]:
    """Return what a step sees of a model's file: content, names and signature, but no precision."""
    found: dict[str, Any] = {
        "sha256": sha256,
        "format": model.format,
        "names": dict(model.names),
        "inputs": [[name, codec.to_data(spec)] for name, spec in model.inputs.items()],  # in call order
        "outputs": list(model.outputs),
        "axes": dict(model.axes),
    }
    if model.parts:
        found["parts"] = [file_inputs(part, content_sha256(part.path)) for part in model.parts]
    if model.feeds is not None:
        found["feeds"] = content_sha256(model.feeds)
    return found


def precision_inputs(precision: Precision) -> dict[str, Any]:
    """Return a precision with the content of its encodings in place of their path."""
    encodings: Path | None = precision.encodings
    data: dict[str, Any] = codec.to_data(replace(precision, encodings=None))
    if encodings is not None:
        data["encodings"] = content_sha256(encodings)
    return data


def options_read(options: Options, reads: frozenset[str], owner: str) -> Options:
    """Return the options with all that is not read at its default, so that nothing else can be depended on.

    Raises:
        PluginError: ``reads`` names no option.
    """
    known = {"threads", "batch", "scenario"}
    unknown = sorted(reads - known)
    if unknown:
        raise PluginError(f"{owner} declares to read the option {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return Options(seed=options.seed, **{name: getattr(options, name) for name in reads})


def capability_inputs(capabilities: Capabilities) -> dict[str, Any]:
    """Return what lowering may see of a host: the capabilities, but not how they are known."""
    data: dict[str, Any] = codec.to_data(capabilities)
    return {name: value for name, value in data.items() if name not in {"version", "evidence"}}
