"""Items as the networks' users have them: speech-like sound, pictures with texture, rendered text, bytes of files."""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
RATE = 16000  # samples a second
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))  # formants in Hz


def speech(seed: int, items: int, samples: int, *, rate: int = RATE) -> Floats:
    """Return [items, samples] in -1..1: voiced vowels with a gliding pitch, hisses and pauses over a noise floor."""
    from scipy import signal

    rng = np.random.default_rng(seed)
    total = items * samples
    sound = rng.normal(0, 0.003, total)
    at = 0
    while at < total:
        length = min(int(rate * rng.uniform(0.08, 0.3)), total - at)
        kind = rng.choice(["vowel", "vowel", "vowel", "hiss", "pause"])
        envelope = np.sin(np.pi * np.arange(length) / length) ** 0.5
        if kind == "vowel":
            pitch = rng.uniform(90, 240) * np.linspace(1, rng.uniform(0.8, 1.25), length)
            pulses = signal.sawtooth(2 * np.pi * np.cumsum(pitch) / rate)
            for formant in VOWELS[rng.integers(len(VOWELS))]:
                b, a = signal.iirpeak(formant, 6, fs=rate)
                pulses = 0.3 * pulses + signal.lfilter(b, a, pulses)
            sound[at : at + length] += rng.uniform(0.1, 0.5) * envelope * pulses / max(np.abs(pulses).max(), 1e-6)
        elif kind == "hiss":
            sound[at : at + length] += 0.08 * envelope * np.diff(rng.normal(size=length + 1))
        at += length
    return np.clip(sound, -1, 1).astype(np.float32).reshape(items, samples)


def brain_waves(seed: int, items: int, samples: int, *, channels: int = 1, rate: int = 250) -> Floats:
    """Return [items, channels, samples] of unit size: noise that falls with frequency, and bursts of 12 to 14 Hz."""
    rng = np.random.default_rng(seed)
    frequencies = np.fft.rfftfreq(samples, 1 / rate)
    noise = rng.normal(size=(items, channels, len(frequencies))) + 1j * rng.normal(
        size=(items, channels, len(frequencies))
    )
    waves = np.fft.irfft(noise / np.maximum(frequencies, 0.5), n=samples)
    waves /= waves.std(axis=-1, keepdims=True)
    seconds = np.arange(samples) / rate
    for wave in waves:
        for start in rng.uniform(0, seconds[-1], 4):
            wave += np.exp(-(((seconds - start) / 0.5) ** 2)) * np.sin(2 * np.pi * rng.uniform(12, 14) * seconds)
    return waves.astype(np.float32)


def spectra(seed: int, items: int, frames: int, *, window: int, hop: int, bands: int | None = None) -> Floats:
    """Return [items, frames, window // 2 + 1] (or that many bands): log power of speech, about 0 to 1."""
    sound = speech(seed, items, window + hop * (frames - 1))
    places = np.arange(window)[None, :] + hop * np.arange(frames)[:, None]
    power = np.abs(np.fft.rfft(sound[:, places] * np.hanning(window), axis=-1)) ** 2
    if bands is not None:
        edges = np.linspace(0, power.shape[-1], bands + 1).astype(int)
        power = np.add.reduceat(power, edges[:-1], axis=-1)
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    return np.clip((decibels + 60) / 100, -0.6, 1.2).astype(np.float32)


def pictures(seed: int, items: int, height: int, width: int) -> Floats:
    """Return [items, height, width, 3] in 0..1: lit gradients, blobs in skin and cloth tones, texture and grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : 1j * height, 0 : 1 : 1j * width]
    found = np.empty((items, height, width, 3), np.float32)
    for image in found:
        angle = rng.uniform(0, 2 * np.pi)
        image[:] = (0.5 + 0.3 * (np.cos(angle) * x + np.sin(angle) * y - 0.5))[..., None] * rng.uniform(0.4, 1, 3)
        for _blob in range(rng.integers(3, 8)):
            distance = ((x - rng.uniform()) / rng.uniform(0.05, 0.35)) ** 2
            distance += ((y - rng.uniform()) / rng.uniform(0.05, 0.35)) ** 2
            inside = (0.5 - 0.5 * np.tanh(6 * (distance - 1)))[..., None]
            wave = 0.1 * np.sin(rng.uniform(20, 90) * x + rng.uniform(20, 90) * y)[..., None]
            image[:] = image * (1 - inside) + inside * (rng.uniform(0.1, 0.95, 3) + wave)
        image += rng.normal(0, 0.02, image.shape)
    return np.clip(found, 0, 1)


def text_lines(seed: int, items: int, height: int, width: int) -> Floats:
    """Return [items, height, width] in 0..1: dark words on light paper, in the font that Pillow ships."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(seed)
    letters = np.array(list("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghkmnpqrstuvwxyz0123456789"))
    found = np.empty((items, height, width), np.float32)
    for page in found:
        canvas = Image.new("L", (width, height), int(rng.integers(200, 255)))
        draw, top = ImageDraw.Draw(canvas), 2
        while top < height - 12:
            size = int(min(rng.integers(14, 40), height - top - 4))
            words = " ".join("".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(4))
            draw.text((rng.integers(1, 6), top), words, int(rng.integers(0, 90)), font=ImageFont.load_default(size))
            top += int(size * 1.6)
        page[:] = np.asarray(canvas, np.float32) / 255 + rng.normal(0, 0.02, (height, width))
    return np.clip(found, 0, 1)


@cache
def _sources() -> tuple[bytes, ...]:
    files = sorted(Path(np.__file__).parent.glob("lib/*.py"))
    return tuple(file.read_bytes() for file in files if file.stat().st_size > 4096)


def file_bytes(seed: int, items: int) -> NDArray[np.int32]:
    """Return [items, 2048]: the first and last 1024 bytes of Python, JSON, CSV, compressed and binary files."""
    rng = np.random.default_rng(seed)
    found = np.empty((items, 2048), np.int32)
    for row in found:
        code = _sources()[rng.integers(len(_sources()))]
        table = rng.normal(size=(200, 4)).round(3)
        made = (
            code,
            json.dumps({f"key{i}": float(v) for i, v in enumerate(table.ravel())}, indent=1).encode(),
            "\n".join(",".join(map(str, line)) for line in table).encode(),
            zlib.compress(code),
            table.tobytes(),
        )
        held = np.frombuffer(made[rng.integers(len(made))], np.uint8)
        row[:1024], row[1024:] = held[:1024], held[-1024:]
    return found
