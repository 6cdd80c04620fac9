"""Bugs of PyTorch's quantized operators, and of Torch-Pruning."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from harness.api import BugCase, Unsupported

Arrays = Mapping[str, np.ndarray]


def _engine(name: str) -> Any:
    import torch

    if name not in torch.backends.quantized.supported_engines:
        raise Unsupported(f"this build of torch has no quantized engine {name!r}")
    torch.backends.quantized.engine = name
    return torch


def saturating_pairs() -> BugCase:
    """Convolve two channels of 255 by weights of 114 and 113: without VNNI, their sum may not fit into 16 bits."""
    x, weight = np.array([[[255], [255]]], np.uint8), np.array([[[114], [113]]], np.int8)
    total = int((x.astype(np.int64) * weight).sum())
    right = {"y": np.array([[[total]]], np.float32)}

    def answer(_built: object, inputs: Arrays) -> Arrays:
        torch = _engine("x86")
        given = torch._make_per_tensor_quantized_tensor(torch.from_numpy(inputs["x"]), 1.0, 0)
        packed = torch.ops.quantized.conv1d_prepack(
            torch._make_per_tensor_quantized_tensor(torch.from_numpy(weight), 1.0, 0), None, [1], [0], [1], 1
        )  # fmt: skip
        out = torch.ops.quantized.conv1d(given, packed, 512.0, 0)
        return {"y": out.dequantize().numpy()}

    return BugCase({"x": x}, right, lambda _folder: None, answer, atol=256.0)  # half of the output's step


def rounded_sum() -> BugCase:
    """Add two quantized numbers on QNNPACK: the sum, in exact fractions, rounds to the nearest code."""
    a_scale, b_scale, c_scale = (float(np.float32(value)) for value in (0.040562573820352554, 0.08881603181362152,
                                                                        0.09029635787010193))  # fmt: skip
    a, b, a_zero, b_zero, c_zero = 158, 136, 112, 126, 124
    exact = Fraction(a - a_zero) * Fraction(a_scale) + Fraction(b - b_zero) * Fraction(b_scale)
    right = {"y": np.array([round(exact / Fraction(c_scale)) + c_zero], np.uint8)}
    inputs = {"a": np.array([a], np.uint8), "b": np.array([b], np.uint8)}

    def answer(_built: object, inputs: Arrays) -> Arrays:
        torch = _engine("qnnpack")
        first = torch._make_per_tensor_quantized_tensor(torch.from_numpy(inputs["a"]), a_scale, a_zero)
        second = torch._make_per_tensor_quantized_tensor(torch.from_numpy(inputs["b"]), b_scale, b_zero)
        return {"y": torch.ops.quantized.add(first, second, c_scale, c_zero).int_repr().numpy()}

    return BugCase(inputs, right, lambda _folder: None, answer)


def vector_and_remainder() -> BugCase:
    """Take the sigmoid of 65 equal values: all 65 are sigmoid(0), whether vectors or single values compute them."""
    x = np.full(65, 255, np.uint8)  # the zero point: zero
    right = {"y": np.full(65, 128, np.uint8)}

    def answer(_built: object, inputs: Arrays) -> Arrays:
        torch = _engine("x86")
        given = torch.quantize_per_tensor(torch.full((65,), 514.0), 1028.02, 255, torch.quint8)
        if not np.array_equal(given.int_repr().numpy(), inputs["x"]):
            return {"y": given.int_repr().numpy()}
        out = torch.ops.quantized.sigmoid(given, output_scale=1 / 256, output_zero_point=0)
        return {"y": out.int_repr().numpy()}

    return BugCase({"x": x}, right, lambda _folder: None, answer)


def wide_average() -> BugCase:
    """Average 16 values by windows of 32 with ceil_mode on QNNPACK: one window, of 16 values."""
    x = np.arange(16, dtype=np.uint8).reshape(1, 1, 16) * 2
    right = {"y": np.array([[[15]]], np.float32)}

    def answer(_built: object, inputs: Arrays) -> Arrays:
        torch = _engine("qnnpack")
        given = torch._make_per_tensor_quantized_tensor(torch.from_numpy(inputs["x"]), 1.0, 0)
        return {"y": torch.nn.functional.avg_pool1d(given, 32, ceil_mode=True).dequantize().numpy()}

    return BugCase({"x": x}, right, lambda _folder: None, answer, atol=0.5)


def doubled_channels() -> BugCase:
    """Prune half of the channels that are concatenated with themselves.

    They are zero, and so is what reads them: whatever importance counts, they go first, and nothing may change.
    """
    chance = np.random.default_rng(0)
    x = chance.standard_normal((2, 4)).astype(np.float32)
    first, second = (
        chance.standard_normal((8, 4)).astype(np.float32),
        chance.standard_normal((3, 16)).astype(np.float32),
    )
    first[1::2], second[:, 1::2] = 0, 0
    hidden = x @ first.T
    right = {"y": np.concatenate([hidden, hidden], axis=1) @ second.T}

    def answer(_built: object, inputs: Arrays) -> Arrays:
        import torch
        import torch_pruning

        class Net(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first = torch.nn.Linear(4, 8, bias=False)
                self.second = torch.nn.Linear(16, 3, bias=False)
                self.first.weight.data.copy_(torch.from_numpy(first))
                self.second.weight.data.copy_(torch.from_numpy(second))

            def forward(self, x: Any) -> Any:
                hidden = self.first(x)
                return self.second(torch.cat([hidden, hidden], dim=1))

        net, given = Net().eval(), torch.from_numpy(inputs["x"])
        torch_pruning.pruner.MagnitudePruner(
            net, given, importance=torch_pruning.importance.MagnitudeImportance(p=2), pruning_ratio=0.5,
            ignored_layers=[net.second],
        ).step()  # fmt: skip
        return {"y": net(given).detach().numpy()}

    return BugCase({"x": x}, right, lambda _folder: None, answer, atol=1e-5)


def joined_branches() -> BugCase:
    """Prune a channel of one of two branches that are concatenated: the other branch keeps its channels."""
    x = np.ones((2, 8), np.float32)
    right = {"wide": np.array(2), "deep": np.array(1)}

    def answer(_built: object, inputs: Arrays) -> Arrays:
        import torch
        import torch_pruning

        class Net(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.wide = torch.nn.Linear(8, 3)
                self.deep = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
                self.head = torch.nn.Linear(4, 1)

            def forward(self, x: Any) -> Any:
                return self.head(torch.cat([self.wide(x), self.deep(x)], dim=-1))

        net, given = Net().eval(), torch.from_numpy(inputs["x"])
        graph = torch_pruning.DependencyGraph().build_dependency(net, example_inputs=given)
        graph.get_pruning_group(net.wide, torch_pruning.prune_linear_out_channels, idxs=[0]).prune()
        net(given)  # the pruned net has to run
        return {"wide": np.array(net.wide.out_features), "deep": np.array(net.deep[2].out_features)}

    return BugCase({"x": x}, right, lambda _folder: None, answer)
