"""Modules as people have them: each is compared with itself run eagerly, and must travel to another process."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import harness_torch
from harness.api import BadModel
from harness_torch import travelling
from harness_torch.lifting import lifted
from harness_torch.plain import CAST

Pair = namedtuple("Pair", ["mean", "spread"])


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    hidden: torch.Tensor
    loss: torch.Tensor | None = None


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


class Returns(nn.Module):
    """Gives its answer in a shape of the user's."""

    def __init__(self, shape: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.net, self.shape = small(), shape

    def forward(self, x: torch.Tensor) -> Any:
        return self.shape(self.net(x))


def images(count: int = 4, dtype: str = "float32") -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).normal(size=(count, 3, 10, 10)).astype(dtype)}


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    module = make()
    for layer in module.modules():  # norms that do something
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-1, 1)
            layer.running_var.uniform_(0.5, 2)
    return module


def eager(module: nn.Module, *arrays: np.ndarray, **named: np.ndarray) -> Any:
    with torch.no_grad():
        given = [torch.from_numpy(array.copy()) for array in arrays]
        return module.eval()(*given, **{name: torch.from_numpy(array.copy()) for name, array in named.items()})


def there_and_back(module: nn.Module, folder: Path) -> nn.Module:
    travelling.write(module, folder / "m.pt")
    return travelling.read(folder / "m.pt").eval()


def check(module: nn.Module, batch: Mapping[str, np.ndarray], wanted: Mapping[str, torch.Tensor], tmp_path: Path,
          **options: Any) -> nn.Module:  # fmt: skip
    made = harness_torch.plain(module, batch, **options)
    assert list(made.outputs) == list(wanted)
    again = there_and_back(made.module, tmp_path)
    got = harness_torch.call(again, batch, outputs=list(wanted))
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value.float().numpy(), rtol=1e-4, atol=1e-5, err_msg=name)
    assert all(value.is_leaf for value in again.parameters())
    harness_torch.copied(made.module)
    return again


def weight_norm(old: bool) -> nn.Module:
    net = small()
    (nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm)(net[3])
    return net


def spectral_norm(old: bool) -> nn.Module:
    net = small()
    (nn.utils.spectral_norm if old else nn.utils.parametrizations.spectral_norm)(net[3])
    return net


def frozen_weight_norm() -> nn.Module:
    return weight_norm(old=False).requires_grad_(False)


class Positive(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs()


def parametrized() -> nn.Module:
    net = small()
    nn.utils.parametrize.register_parametrization(net[0], "weight", Positive())
    nn.utils.parametrizations.orthogonal(net[6])
    return net


def mixed_pruning() -> nn.Module:
    from torch.nn.utils import prune

    net = small()
    prune.l1_unstructured(net[3], "weight", amount=0.5)
    prune.ln_structured(net[3], "weight", amount=2, n=2, dim=0)
    prune.random_unstructured(net[6], "bias", amount=1)
    return net


def compiled_inside() -> nn.Module:
    net = small()
    net[3] = torch.compile(net[3], backend="eager")
    return net


def own_compile() -> nn.Module:
    net = small()
    net.compile(backend="eager")
    return net


@pytest.mark.parametrize(
    "make",
    [
        small,
        lambda: weight_norm(old=False),
        lambda: weight_norm(old=True),
        lambda: spectral_norm(old=False),
        lambda: spectral_norm(old=True),
        frozen_weight_norm,
        parametrized,
        mixed_pruning,
        lambda: nn.DataParallel(small()),
        lambda: torch.compile(small(), backend="eager"),
        compiled_inside,
        own_compile,
        lambda: nn.DataParallel(torch.compile(weight_norm(old=False), backend="eager")),
        lambda: torch.optim.swa_utils.AveragedModel(small()),
    ],
)
def test_wrapped_and_parametrized_modules_become_plain_layers(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    module = seeded(make)
    wanted = eager(module, *images().values()).clone()
    again = check(module, images(), {"logits": wanted}, tmp_path)
    assert [name for name, _ in again.named_parameters() if "weight" in name] == sorted(
        f"{i}.weight" for i in (0, 1, 3, 6)
    )
    assert {type(layer) for layer in again} == {type(layer) for layer in small()}


def test_masks_stay_in_training(tmp_path: Path) -> None:
    made = harness_torch.plain(mixed_pruning(), images())
    assert set(made.zeros) == {"3.weight", "6.bias"}
    with torch.no_grad():
        for value in made.module.parameters():
            value.add_(1)
    made.hold(made.module)
    assert float((made.module[3].weight == 0).float().mean()) >= 0.5
    assert float(made.module[0].weight.detach().abs().min()) > 0


def test_lazy_layers_get_their_sizes_from_one_batch(tmp_path: Path) -> None:
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    made = harness_torch.plain(net, images())
    assert (type(made.module[0]), type(made.module[4])) == (nn.Conv2d, nn.Linear)
    assert made.module[4].in_features == 4 * 8 * 8
    check(made.module, images(), {"logits": eager(made.module, *images().values())}, tmp_path)


@pytest.mark.parametrize(
    ("shape", "read"),
    [
        (lambda y: y, {"logits": lambda r: r}),
        (lambda y: (y, y * 2), {"output0": lambda r: r[0], "output1": lambda r: r[1]}),
        (lambda y: [y, y * 2], {"output0": lambda r: r[0], "output1": lambda r: r[1]}),
        (lambda y: (y,), {"output0": lambda r: r[0]}),
        (lambda y: {"b": y, "a": y * 2}, {"b": lambda r: r["b"], "a": lambda r: r["a"]}),
        (lambda y: OrderedDict(z=y, a=None, b=3), {"z": lambda r: r["z"]}),
        (lambda y: Answer(y, y * 2), {"logits": lambda r: r.logits, "hidden": lambda r: r.hidden}),
        (lambda y: Pair(y, y * 2), {"mean": lambda r: r.mean, "spread": lambda r: r.spread}),
        (
            lambda y: (y, (y * 2, [y * 3])),
            {"output0": lambda r: r[0], "output1_0": lambda r: r[1][0], "output1_1_0": lambda r: r[1][1][0]},
        ),
        (lambda y: {"out": y, "aux": {"k": y * 2}}, {"out": lambda r: r["out"], "aux_k": lambda r: r["aux"]["k"]}),
    ],
)  # fmt: skip
def test_answers_of_any_shape_become_named_outputs(shape: Any, read: Mapping[str, Any], tmp_path: Path) -> None:
    module = seeded(lambda: Returns(shape))
    result = eager(module, *images().values())
    again = check(module, images(), {name: way(result) for name, way in read.items()}, tmp_path)
    assert next(name for name, _ in again.named_parameters()) == "net.0.weight"
    assert isinstance(again, Returns)


def test_outputs_are_renamed_or_chosen_by_name(tmp_path: Path) -> None:
    module = seeded(lambda: Returns(lambda y: {"a": y, "b": y * 2}))
    result = eager(module, *images().values())
    check(module, images(), {"b": result["b"]}, tmp_path, outputs=("b",))
    module = seeded(lambda: Returns(lambda y: (y, y * 2)))
    check(module, images(), {"p": result["a"], "q": result["b"]}, tmp_path, outputs=("p", "q"))
    with pytest.raises(BadModel, match=r"returns 2 outputs \(output0, output1\), but 1 are named: p"):
        harness_torch.plain(seeded(lambda: Returns(lambda y: (y, y * 2))), images(), outputs=("p",))
    with pytest.raises(BadModel, match="in which there is no tensor"):
        harness_torch.plain(seeded(lambda: Returns(lambda y: {"n": 3})), images())


class Order(nn.Module):
    def forward(self, zeta: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        return zeta * 2 - alpha


class Optional_(nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, *, scale: torch.Tensor | None = None,
                verbose: bool = False) -> torch.Tensor:  # fmt: skip
        y = x if mask is None else x * mask
        return y if scale is None else y * scale + 1


class Whole(nn.Module):
    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["a"] * 2 - batch["b"]


class Listed(nn.Module):
    def forward(self, items: list[torch.Tensor]) -> torch.Tensor:
        return items[0] * 2 - items[1]


class Anything(nn.Module):
    def forward(self, **given: torch.Tensor) -> torch.Tensor:
        return given["a"] * 2 - given["b"]


class Many(nn.Module):
    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        return given[0] * 2 - given[1]


A, B = (np.random.default_rng(i).normal(size=(4, 5)).astype("float32") for i in (1, 2))


@pytest.mark.parametrize(
    ("make", "batch", "wanted"),
    [
        (Order, {"zeta": A, "alpha": B}, A * 2 - B),
        (Order, {"alpha": B, "zeta": A}, A * 2 - B),
        (Order, {"first": A, "second": B}, A * 2 - B),
        (Order, {"b": A, "a": B}, A * 2 - B),
        (Optional_, {"x": A}, A),
        (Optional_, {"x": A, "mask": B}, A * B),
        (Optional_, {"x": A, "scale": B}, A * B + 1),
        (Optional_, {"scale": B, "x": A}, A * B + 1),
        (Optional_, {"y": A}, A),
        (Whole, {"a": A, "b": B}, A * 2 - B),
        (Listed, {"p": A, "q": B}, A * 2 - B),
        (Anything, {"b": B, "a": A}, A * 2 - B),
        (Many, {"u": A, "v": B}, A * 2 - B),
    ],
)
def test_inputs_bind_by_name_and_else_by_position(
    make: Any, batch: dict[str, np.ndarray], wanted: np.ndarray, tmp_path: Path
) -> None:
    check(make(), batch, {"logits": torch.from_numpy(wanted)}, tmp_path)


@pytest.mark.parametrize(
    ("make", "batch", "message"),
    [
        (Order, {"zeta": A}, "forward needs 'alpha'"),
        (Order, {"zeta": A, "beta": B, "alpha": B}, "no parameter 'beta'; it takes zeta, alpha"),
        (Order, {"a": A, "b": B, "c": B}, "forward takes zeta, alpha; the inputs are a, b, c"),
        (Order, {"zeta": A, "alpha": B[:, :3]}, r"cannot run its own inputs \(zeta float32\[4, 5\].*RuntimeError"),
        (small, {"x": A}, "cannot run its own inputs"),
    ],
)
def test_inputs_that_forward_does_not_take_are_one_sentence(make: Any, batch: Any, message: str) -> None:
    with pytest.raises(BadModel, match=message) as caught:
        harness_torch.plain(make(), batch)
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("given", ["float32", "float64", "float16"])
def test_other_float_dtypes_become_float32_and_say_so(dtype: torch.dtype, given: str, tmp_path: Path) -> None:
    module = seeded(small)
    wanted = eager(module, *images().values())
    made = harness_torch.plain(module.to(dtype), images(dtype=given))
    assert (made.flags, made.dtypes) == ((CAST,), {"x": "float32"})
    assert {value.dtype for value in made.module.parameters()} == {torch.float32}
    got = harness_torch.call(made.module, images(), outputs=["y"])["y"]
    np.testing.assert_allclose(got, wanted.numpy(), atol=0.05)


def test_doubles_from_numpy_fit_a_float32_module() -> None:
    made = harness_torch.plain(seeded(small), images(dtype="float64"))
    assert (made.flags, made.dtypes) == ((), {"x": "float32"})


class NonLeaf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(5))
        self.scaled = self.w * 3
        self.act = lambda x: x + 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x * self.scaled)


def test_tensors_with_a_history_and_lambdas_travel(tmp_path: Path) -> None:
    check(NonLeaf(), {"x": A}, {"logits": torch.from_numpy(A * 3 + 1)}, tmp_path)


class Drops(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.drop = nn.Linear(5, 3), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(self.fc(x)) if self.training is None else self.drop(self.fc(x))


class AlwaysDrops(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.5)


def test_train_mode_is_left_and_random_answers_are_refused(tmp_path: Path) -> None:
    module = Drops().train()
    check(module, {"x": A}, {"logits": eager(module, A)}, tmp_path)
    with pytest.raises(BadModel, match="other values of 'logits' for the same items"):
        harness_torch.plain(AlwaysDrops(), {"x": A})


class Breaks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lock = nn.Linear(5, 3), __import__("threading").Lock()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) if float(x.sum()) > 0 else self.fc(x * 2)


def test_what_no_file_takes_is_named() -> None:
    with pytest.raises(BadModel, match=r"cannot be written to a file \(.*lock.*, nor exported"):
        harness_torch.plain(Breaks(), {"x": A})


LOCAL = """
import hashlib, sys, torch
from pathlib import Path
from harness_torch import plain, travelling

def make(scale):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(2, 2)
        def forward(self, x, mask=None):
            return {"y": self.fc(x) * scale, "half": helper(x)}
    return Net()

def helper(x):
    return x / 2

if __name__ == "__main__":
    import numpy as np
    torch.manual_seed(0)
    made = plain(make(3.0), {"x": np.ones((2, 2), "float32")})
    travelling.write(made.module, Path(sys.argv[1]))
    other = plain(make(5.0), {"x": np.ones((2, 2), "float32")})
    travelling.write(other.module, Path(sys.argv[1] + "5"))
    again = travelling.read(Path(sys.argv[1]))
    travelling.write(again, Path(sys.argv[1] + "again"))
"""


def test_local_classes_of_main_travel_by_value_and_with_equal_bytes(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(LOCAL)
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / name / "m")]
        subprocess.run(command, check=True, capture_output=True)
        files.append([hashlib.sha256((tmp_path / name / f"m{end}").read_bytes()).hexdigest() for end in ("", "5")])
    assert files[0] == files[1]
    three, five = travelling.read(tmp_path / "a/m"), travelling.read(tmp_path / "a/m5")
    x = torch.ones(2, 2)
    with torch.no_grad():
        torch.testing.assert_close(three(x)[0], three.fc(x) * 3)
        torch.testing.assert_close(five(x)[0], five.fc(x) * 5)
        torch.testing.assert_close(three(x)[1], x / 2)
        torch.testing.assert_close(travelling.read(tmp_path / "a/magain")(x)[0], three.fc(x) * 3)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bags_become_lookups_that_every_exporter_takes(mode: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.EmbeddingBag(9, 4, mode=mode), nn.Linear(4, 2))
    ids = np.random.default_rng(0).integers(0, 9, (6, 3))
    again = check(module, {"ids": ids}, {"logits": eager(module, ids).clone()}, tmp_path)
    program = torch.export.export(again, (torch.from_numpy(ids),))
    assert not [node for node in program.graph.nodes if "bag" in str(node.target)]


class Bags(nn.Module):
    """Bags of one size beside another input."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.bag, self.fc = nn.EmbeddingBag(9, 4, mode=mode), nn.Linear(6, 2)

    def forward(self, number: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.cat([self.bag(ids), number], 1))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bags_of_a_program_become_lookups(mode: str) -> None:
    torch.manual_seed(0)
    module, ids = Bags(mode).eval(), torch.from_numpy(np.random.default_rng(0).integers(0, 9, (6, 3)))
    free = {0: torch.export.Dim("batch")}
    program = torch.export.export(module, (torch.ones(6, 2), ids), dynamic_shapes=(free, free))
    again = lifted(program)
    number = torch.randn(4, 2)
    torch.testing.assert_close(again(number, ids[:4]), module(number, ids[:4]))
    assert isinstance(again.get_submodule("bag"), nn.EmbeddingBag)
    exported = torch.export.export(again, (number, ids[:4]))
    assert not [node for node in exported.graph.nodes if "embedding_bag" in str(node.target)]


def test_ragged_bags_of_a_program_stay_an_operator() -> None:
    module = nn.EmbeddingBag(9, 4).eval()
    given = torch.tensor([1, 2, 4, 5]), torch.tensor([0, 3])
    again = lifted(torch.export.export(module, given))
    torch.testing.assert_close(again(*given), module(*given))


class Functional(nn.Module):
    """Weights that no layer holds, and an attribute that no file takes."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(8, 3, 3, 3)), nn.Parameter(torch.randn(8))
        self.blk = nn.Module()
        self.blk.w = nn.Parameter(torch.randn(4, 8))
        self.bn = nn.BatchNorm2d(8)
        self.lock = __import__("threading").Lock()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.bn(F.conv2d(x, self.w1, self.b1)).mean((2, 3)), self.blk.w)


class Recurrent(nn.Module):
    """A tied head, two kinds of recurrent layers, a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.ln = nn.Embedding(5, 3), nn.LayerNorm(8)
        self.r = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
        self.g = nn.GRU(8, 4, batch_first=True)
        self.f, self.h = nn.Linear(4, 5, bias=False), nn.Linear(3, 5, bias=False)
        self.h.weight = self.e.weight

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y, _ = self.r(self.e(x))
        y, state = self.g(self.ln(y))
        return {"a": self.f(y[:, -1]), "h": state.transpose(0, 1), "t": self.h(self.e(x))}


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c, self.u = nn.Conv2d(3, 3, 3, padding=1), nn.ConvTranspose2d(3, 4, 2, 2)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.u(self.c(F.relu(self.c(x)))))


SMALL = {"0": nn.Conv2d, "1": nn.BatchNorm2d, "3": nn.Conv2d, "6": nn.Linear}
LIFTED = {
    "scripted": (lambda: torch.jit.script(seeded(small).eval()), images(2), SMALL),
    "traced": (lambda: torch.jit.trace(seeded(small).eval(), torch.zeros(1, 3, 10, 10)), images(2), SMALL),
    "fx": (lambda: torch.fx.symbolic_trace(seeded(small).eval()), images(2), SMALL),
    "script inside": (lambda: nn.Sequential(torch.jit.trace(small()[0], torch.zeros(1, 3, 9, 9)), small()[1]),
                      images(2), {"0": nn.Conv2d, "1": nn.BatchNorm2d}),
    "functional": (Functional, images(2), {"w1": nn.Conv2d, "blk.w": nn.Linear, "bn": nn.BatchNorm2d}),
    "shared": (lambda: torch.jit.script(Shared().eval()), images(2), {"c": nn.Conv2d, "u": nn.ConvTranspose2d}),
    "scripted recurrent": (lambda: torch.jit.script(Recurrent().eval()), {"x": np.array([[0, 1, 2], [3, 4, 0]])},
                           {"f": nn.Linear, "ln": nn.LayerNorm, "lstm": nn.LSTM, "gru": nn.GRU}),
    "traced recurrent": (
        lambda: torch.jit.trace(Recurrent().eval(), torch.zeros(2, 3, dtype=torch.long), strict=False),
        {"x": np.array([[0, 1, 2], [3, 4, 0]])}, {"f": nn.Linear, "e": nn.Embedding, "r": nn.LSTM, "g": nn.GRU},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LIFTED)
def test_what_no_file_takes_travels_as_layers_made_of_its_program(case: str, tmp_path: Path) -> None:
    make, batch, layers = LIFTED[case]
    torch.manual_seed(0)
    module = make()
    result = eager(module, *batch.values())
    again = check(module, batch, result if isinstance(result, dict) else {"logits": result}, tmp_path)
    found = {name: type(layer) for name, layer in again.named_modules()}
    assert layers.items() <= found.items()
    more = {name: np.concatenate([value] * 3) for name, value in batch.items()}  # any batch
    first = next(iter(result.values())) if isinstance(result, dict) else result
    got = next(iter(harness_torch.call(again, more).values()))
    np.testing.assert_allclose(got[:2], first.numpy(), rtol=1e-4, atol=1e-5)
    again.train()
    outputs = again(*(torch.from_numpy(value) for value in more.values()))
    (outputs[0] if isinstance(outputs, tuple) else outputs).sum().backward()
    assert all(value.grad is not None for name, value in again.named_parameters() if name in {"w1.weight", "0.weight"})
