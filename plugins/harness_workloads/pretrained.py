"""Thin loaders of published models: they read what was downloaded before and say what to download."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.api import (
    BadModel,
    Job,
    MissingDependency,
    Model,
    Split,
    SplitName,
    TensorSpec,
    Unsupported,
    WorkloadSpec,
    param,
)
from harness_workloads import folder
from harness_workloads.archives import LABELS, Arrays, divide, names, read
from harness_workloads.scoring import accuracy, correct, cross_entropy
from harness_workloads.seeded import ITEMS, SEEDS, seeded_split

OUTPUTS = ("logits",)


@dataclass(frozen=True)
class ImageParams:
    """A published image classifier."""

    model: str = param("resnet18", "the model's name in the library")
    weights: str = param("published", "those of the local cache, or seeded ones", choices=("published", "seeded"))
    images: str | None = param(None, "folder with a subfolder per class, named by class index; none: seeded inputs")
    size: int = param(224, "side of the input image in pixels", ge=32, le=1024)


@dataclass(frozen=True)
class TextParams:
    """A model of transformers that classifies images or sequences."""

    model: str = param("", "local folder of save_pretrained, or a name whose files are in the local cache")
    data: str | None = param(None, ".npz with an array per input and optional labels 'y'; none: seeded inputs")
    length: int = param(64, "tokens of a sequence, where no data tells", ge=1)


def _images(params: ImageParams) -> Arrays:
    """Read the images; a subfolder's name is the class index that the model was trained with."""
    import numpy as np

    found = folder.arrays(params.images or "", params.size)
    classes, _files = folder.listed(params.images or "")
    if found.labels is None or not all(name.isdigit() for name in classes):
        raise BadModel(f"the subfolders of {params.images} must be named by class index, such as 0, 1, 207")
    return dataclasses.replace(found, labels=np.array([int(name) for name in classes])[found.labels])


def _image_inputs(params: ImageParams) -> dict[str, TensorSpec]:
    return {"image": TensorSpec("float32", (None, 3, params.size, params.size))}


def _image_split(params: ImageParams, name: SplitName) -> Split:
    if params.images is None:
        return seeded_split(_image_inputs(params), name, f"model {params.model}")
    return divide(_images(params), name, train=True)


def _torchvision(params: ImageParams) -> Any:
    try:
        import torchvision
    except ImportError as error:
        raise MissingDependency("workload torchvision needs torchvision", hint="pip install torchvision") from error
    import torch

    known = torchvision.models.list_models(module=torchvision.models)
    if params.model not in known:
        raise BadModel(f"torchvision has no classifier {params.model!r}", hint=f"known: {', '.join(known)}")
    if params.weights == "seeded":
        return torchvision.models.get_model(params.model, weights=None)
    weights = torchvision.models.get_model_weights(params.model).DEFAULT
    if not (Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name).is_file():
        raise Unsupported(
            f"torchvision's {params.model} needs a download of {weights.url}",
            hint=f"python -c \"import torchvision; torchvision.models.get_model({params.model!r}, weights='DEFAULT')\"",
        )
    return torchvision.models.get_model(params.model, weights=weights)


def _timm(params: ImageParams) -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingDependency("workload timm needs timm", hint="pip install timm") from error
    if params.model not in timm.list_models():
        raise BadModel(f"timm has no model {params.model!r}")
    if params.weights == "seeded":
        return timm.create_model(params.model, pretrained=False)
    with _offline():
        try:
            return timm.create_model(params.model, pretrained=True)
        except (OSError, RuntimeError) as error:  # what the hub's client raises for a file that is not in its cache
            raise Unsupported(
                f"timm's {params.model} needs a download: {error}",
                hint=f'python -c "import timm; timm.create_model({params.model!r}, pretrained=True)"',
            ) from error


def _offline() -> Any:
    """Return a context in which the hub's client answers from its cache alone."""
    from unittest.mock import patch

    import huggingface_hub.constants

    return patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", new=True)


def _flags(params: ImageParams) -> tuple[str, ...]:
    synthetic = ("synthetic_weights",) if params.weights == "seeded" else ()
    return synthetic + (("random_calibration",) if params.images is None else ())


def _fit_images(params: ImageParams, job: Job) -> Model:
    import harness_torch

    harness_torch.seed_everything(job.seed)
    module = (_torchvision if job.workload.name == "torchvision" else _timm)(params)
    return harness_torch.new_model(module.eval(), job, job.workload.inputs, OUTPUTS, flags=_flags(params))


@lru_cache(maxsize=2)
def _transformer(name: str) -> Any:
    """Load a classifier of transformers from a local folder or the local cache."""
    if not name:
        raise BadModel("no model is given", hint="transformers:model=folder")
    try:
        import transformers
    except ImportError as error:
        raise MissingDependency("workload transformers needs transformers", hint="pip install transformers") from error
    hint = f"huggingface-cli download {name}"
    try:
        config = transformers.AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
        architecture = (config.architectures or [""])[0]
        if "Classification" not in architecture:
            raise BadModel(f"model {name} is a {architecture or 'model of no kind'}; a classifier is due")
        return getattr(transformers, architecture).from_pretrained(
            name, config=config, local_files_only=True, attn_implementation="eager", use_safetensors=True
        )
    except (OSError, ValueError) as error:
        told = str(error).strip().splitlines()[0]
        raise Unsupported(f"model {name} of transformers needs a download: {told}", hint=hint) from error


def _text_inputs(params: TextParams) -> dict[str, TensorSpec]:
    model = _transformer(params.model)
    if model.main_input_name == "pixel_values":
        config = model.config
        shape = (None, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": TensorSpec("float32", shape)}
    ids = TensorSpec("int64", (None, _length(params)))
    return {"input_ids": ids, "attention_mask": ids}


def _length(params: TextParams) -> int:
    import numpy as np

    if params.data is None or "input_ids" not in names(Path(params.data)):
        return params.length
    with np.load(params.data, allow_pickle=False) as archive:
        return int(archive["input_ids"].shape[-1])


@lru_cache(maxsize=2)
def _text_arrays(params: TextParams) -> Arrays:
    return read(Path(params.data or ""), _text_inputs(params))


def _text_split(params: TextParams, name: SplitName) -> Split:
    if params.data is not None:
        return divide(_text_arrays(params), name, train=True)
    inputs = _text_inputs(params)
    if "input_ids" not in inputs:
        return seeded_split(inputs, name, f"model {params.model}")
    return _tokens(params, name)


def _tokens(params: TextParams, name: SplitName) -> Split:
    import numpy as np

    shape = (ITEMS, params.length)
    ids = np.random.default_rng(SEEDS[name]).integers(0, _transformer(params.model).config.vocab_size, shape)
    return Split({"input_ids": ids, "attention_mask": np.ones(shape, np.int64)})


def _fit_text(params: TextParams, job: Job) -> Model:
    import copy

    import harness_torch
    from harness_workloads.nets.wrapped import Classifier

    inputs: Mapping[str, TensorSpec] = job.workload.inputs
    module = Classifier(copy.deepcopy(_transformer(params.model)), tuple(inputs))
    flags = ("random_calibration",) if params.data is None else ()
    return harness_torch.new_model(module.eval(), job, inputs, OUTPUTS, flags=flags)


def _fingerprint(images: str | None) -> str:
    return folder.fingerprint(images) if images else ""


def _text_fingerprint(params: TextParams) -> str:
    """Hash the weights, since a folder of the same name may hold others, and the data."""
    import hashlib

    digest = hashlib.sha256()
    for value in _transformer(params.model).state_dict().values():
        digest.update(value.contiguous().numpy().tobytes())
    digest.update(Path(params.data).read_bytes() if params.data else b"")
    return digest.hexdigest()


def workloads() -> Iterable[WorkloadSpec[Any]]:
    """Return the workloads of this module."""
    for name in ("torchvision", "timm"):
        yield WorkloadSpec(
            name=name,
            modality="image",
            summary=f"an image classifier of {name}, with your images; published weights must be downloaded before",
            params=ImageParams,
            inputs=_image_inputs,
            outputs=OUTPUTS,
            fit=_fit_images,
            split=_image_split,
            score=correct,
            aggregate=accuracy,
            loss=cross_entropy,
            labelled=lambda params: params.images is not None,
            fingerprint=lambda params: _fingerprint(params.images),
        )
    yield WorkloadSpec(
        name="transformers",
        modality="file",
        summary="a classifier of transformers from a local folder or cache, with your arrays; nothing is downloaded",
        params=TextParams,
        inputs=_text_inputs,
        outputs=OUTPUTS,
        fit=_fit_text,
        split=_text_split,
        score=correct,
        aggregate=accuracy,
        loss=cross_entropy,
        labelled=lambda params: params.data is not None and LABELS in names(Path(params.data)),
        fingerprint=_text_fingerprint,
    )
