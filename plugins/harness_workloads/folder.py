"""Images in a folder with one subfolder per class, and a small network trained on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.api import BadModel, Job, MissingDependency, Model, Split, SplitName, TensorSpec, WorkloadSpec, param
from harness_workloads.archives import Arrays, divide
from harness_workloads.augment import moved
from harness_workloads.scoring import accuracy, correct, cross_entropy

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as published models expect
OUTPUTS = ("logits",)


@dataclass(frozen=True)
class Params:
    """Data and training."""

    path: str = param("", "folder with one subfolder of images per class")
    size: int = param(32, "side that images are resized to, in pixels", ge=16, le=512)
    network: str = param("resnet8", "what is trained on them", choices=("resnet8", "mobilenet"))
    epochs: int = param(10, "passes over the training split", ge=0)
    lr: float = param(4e-3, "peak learning rate", gt=0)


def listed(path: str) -> tuple[tuple[str, ...], tuple[tuple[Path, int], ...]]:
    """Return the class names in order, and each image file with its class.

    Raises:
        BadModel: There is no such folder, or it holds fewer than two classes.
    """
    root = Path(path)
    if not path or not root.is_dir():
        raise BadModel(f"image folder {path!r} is not there", hint="one subfolder of images per class")
    classes = tuple(sorted(item.name for item in root.iterdir() if item.is_dir()))
    if len(classes) < 2:
        raise BadModel(f"image folder {path} holds {len(classes)} subfolders; one per class is due, at least 2")
    files = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((root / name).iterdir())
        if file.suffix.lower() in SUFFIXES
    ]
    return classes, tuple(files)


@lru_cache(maxsize=2)
def arrays(path: str, size: int) -> Arrays:
    """Read all images as float32 [n, 3, size, size], normalised as ImageNet models expect, and their classes.

    Raises:
        BadModel: A file is no image.
        MissingDependency: pillow is not installed.
    """
    import numpy as np

    try:
        from PIL import Image
    except ImportError as error:
        hint = "pip install 'compression-harness[workloads]'"
        raise MissingDependency("reading images needs pillow, which is not installed", hint=hint) from error
    _classes, files = listed(path)
    images = np.empty((len(files), 3, size, size), np.float32)
    for i, (file, _label) in enumerate(files):
        try:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
        except (OSError, Image.DecompressionBombError) as error:
            raise BadModel(f"image {file} cannot be read: {error}") from error
        images[i] = pixels.transpose(2, 0, 1) / 255
    images -= np.array(MEAN, np.float32)[:, None, None]
    images /= np.array(DEVIATION, np.float32)[:, None, None]
    return Arrays({"image": images}, np.array([label for _file, label in files], np.int64))


def fingerprint(path: str) -> str:
    """Return a hash of the names and contents of all images."""
    digest = hashlib.sha256()
    for file, label in listed(path)[1]:
        digest.update(f"{label} {file.name} ".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _split(params: Params, name: SplitName) -> Split:
    return divide(arrays(params.path, params.size), name, train=True)


def _model(params: Params, *, width: float = 1.0, depth: float = 1.0) -> Any:
    classes = len(listed(params.path)[0])
    if params.network == "mobilenet":
        from harness_workloads.nets.mobilenet import SMALL, MobileNetV2

        return MobileNetV2(SMALL, classes=classes, stem=16, last=128, stem_stride=1, width=width, depth=depth)
    from harness_workloads.nets.resnet import ResNet8

    return ResNet8(3, classes, width=width, depth=depth)


def _fit(params: Params, job: Job) -> Model:
    import harness_torch

    harness_torch.seed_everything(job.seed)
    module = job.workload.build()
    harness_torch.fit(module, job, epochs=params.epochs, lr=params.lr, augment=job.workload.augment)
    return harness_torch.new_model(module, job, job.workload.inputs, OUTPUTS)


def workloads() -> Iterable[WorkloadSpec[Any]]:
    """Return the workload of this module."""
    yield WorkloadSpec(
        name="image-folder",
        modality="image",
        summary="a small network trained on your images: a folder with one subfolder per class",
        params=Params,
        inputs=lambda params: {"image": TensorSpec("float32", (None, 3, params.size, params.size))},
        outputs=OUTPUTS,
        fit=_fit,
        split=_split,
        score=correct,
        aggregate=accuracy,
        model=_model,
        loss=cross_entropy,
        augment=moved,
        fingerprint=lambda params: fingerprint(params.path),
    )
