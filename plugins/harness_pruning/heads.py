"""Attention heads removed: rows of query, key and value, and columns of the output (Michel et al., 2019)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.api import Job, Model, Unsupported, first_line
from harness_pruning.channels import Params, allocate, structured

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness_pruning.importance import Evidence

COUNTS = ("heads", "num_heads", "n_heads", "num_attention_heads")
JOINT = ("qkv", "qkv_proj", "query_key_value", "Wqkv", "in_proj")  # one layer for queries, keys and values
OUTS = ("proj", "out_proj", "o_proj", "out", "dense", "proj_out")
CLOSE = 1e-4  # relative to the largest output: float32 sums in another order
PARTS = (("query", "key", "value", "out"), ("q_proj", "k_proj", "v_proj", "out_proj"), ("q", "k", "v", "o"))


@dataclass(frozen=True)
class Attention:
    """One attention layer of four linear layers.

    Attributes:
        name: In the module.
        layer: That holds the number of heads.
        count: Name of the attribute with the number of heads.
        readers: Names of the linear layers of query, key and value.
        out: Name of the output layer.
    """

    name: str
    layer: Any
    count: str
    readers: tuple[str, ...]
    out: str

    @property
    def heads(self) -> int:
        """How many heads there are now."""
        return int(getattr(self.layer, self.count))

    @property
    def size(self) -> int:
        """Channels of one head."""
        return int(getattr(self.layer, self.out).in_features) // self.heads

    def scores(self, evidence: Evidence, ratios: Mapping[Any, Tensor]) -> Tensor:
        """Return the importance of each head over all weights that would go with it: shape [heads].

        Args:
            evidence: The criterion.
            ratios: Signal-to-noise ratio of the channels that each output layer reads.
        """
        import torch

        if evidence.importance == "random":
            return torch.rand(self.heads)
        out = getattr(self.layer, self.out)
        if evidence.importance == "snr":
            return ratios[out].view(self.heads, -1).mean(1)
        total, every = torch.zeros(self.heads), torch.arange(self.heads)
        for name in self.readers:
            rows = evidence.entries(getattr(self.layer, name).weight)
            evidence.add(total, every, evidence.over(rows.view(self.heads, -1), 0))
        columns = evidence.entries(out.weight)
        evidence.add(total, every, evidence.over(columns.view(len(columns), self.heads, -1), 1))
        return evidence.finish(total)

    def remove(self, heads: Sequence[int]) -> None:
        """Take heads out, in place."""
        from torch import nn

        gone = set(heads)
        keep = [head * self.size + i for head in range(self.heads) if head not in gone for i in range(self.size)]
        for name in self.readers:
            part = getattr(self.layer, name)
            part.weight = nn.Parameter(part.weight.detach()[keep].clone())
            part.bias = None if part.bias is None else nn.Parameter(part.bias.detach()[keep].clone())
            part.out_features = len(keep)
        out = getattr(self.layer, self.out)
        out.weight = nn.Parameter(out.weight.detach()[:, keep].clone())
        out.in_features = len(keep)
        setattr(self.layer, self.count, self.heads - len(gone))


def compress(model: Model, params: Params, job: Job) -> Model:
    """Remove attention heads and fine-tune what is left.

    Raises:
        Unsupported: There is no attention layer that can be read, or it has too few heads.
    """
    return structured("head-pruning", remove_heads, model, params, job)


def remove_heads(module: nn.Module, inputs: Sequence[Tensor], params: Params, job: Job) -> dict[str, tuple[int, ...]]:
    """Remove heads in place, least important first.

    Returns:
        Name of each attention layer -> the heads that went.

    Raises:
        Unsupported: There is no attention layer of a kind that is known, or it would keep no head.
    """
    from harness_pruning.importance import gather

    written_out(module)
    unknown = _unjoined(module, inputs)
    found = {item.name: item for item in attentions(module)}
    if not found:
        raise Unsupported(
            "head-pruning found no attention: it reads torch's MultiheadAttention, layers with a number of heads "
            f"({', '.join(COUNTS)}) and four linear layers ({'; '.join(', '.join(parts) for parts in PARTS)}), and "
            f"such with one for queries, keys and values ({', '.join(JOINT)})"
            + (f"; {', '.join(unknown)} computes something else with it, or takes more than tokens" if unknown else "")
        )
    evidence = gather(module, params.importance, job)
    ratios = _ratios(module, found, job) if params.importance == "snr" else {}
    scores = {name: item.scores(evidence, ratios) for name, item in found.items()}
    removed: dict[str, tuple[int, ...]] = {}
    for name, stay in _stay(found, scores, params, job.hardware.channel_multiple).items():
        going = found[name].heads - stay
        if going:
            removed[name] = tuple(sorted(scores[name].argsort(stable=True)[:going].tolist()))
            found[name].remove(removed[name])
    return removed


def _stay(
    found: Mapping[str, Attention], scores: Mapping[str, Tensor], params: Params, multiple: int
) -> dict[str, int]:
    """Return how many heads of each layer stay: as many as fill whole vectors together."""
    heads = max(multiple // math.gcd(multiple, item.size) for item in found.values())
    everywhere = params.allocation == "global"
    return allocate(scores, params.ratio, heads, method="head-pruning", everywhere=everywhere)


def written_out(module: nn.Module) -> None:
    """Replace torch's attention layers, which fix the width of their heads, by layers that do not; in place."""
    from torch import nn

    from harness_torch.attention import HeadAttention

    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.MultiheadAttention):
                try:
                    setattr(parent, name, HeadAttention.of(layer))
                except ValueError as error:
                    raise Unsupported(
                        f"head-pruning cannot take attention layer {name!r} apart: {first_line(str(error))}"
                    ) from None


def _unjoined(module: nn.Module, inputs: Sequence[Tensor]) -> list[str]:
    """Take layers with one linear layer for queries, keys and values apart, in place; return names of those that stay.

    A layer is replaced where plain attention with its weights gives its outputs on the tokens that it sees: whatever
    its code does beside (norms of queries, rotations, masks, a window) would show there.
    """
    from harness_torch.attention import SelfAttention

    stay = []
    for name, layer, joint, out, heads in list(_joint(module)):
        made = _same_function(_seen(module, layer, inputs), joint, out, heads)
        if made is None:
            stay.append(name)
        else:
            module.set_submodule(name, SelfAttention(made).train(layer.training))
    return stay


def _joint(module: nn.Module) -> Iterator[tuple[str, nn.Module, Any, Any, int]]:
    from torch import nn

    for name, layer in module.named_modules():
        count = next((word for word in COUNTS if isinstance(getattr(layer, word, None), int)), None)
        joint, out = (
            next((item for word in words if isinstance(item := getattr(layer, word, None), nn.Linear)), None)
            for words in (JOINT, OUTS)
        )
        if not name or count is None or joint is None or out is None:
            continue
        heads = int(getattr(layer, count))
        if joint.out_features == 3 * out.in_features and out.in_features % heads == 0:
            yield name, layer, joint, out, heads


def _seen(module: nn.Module, layer: nn.Module, inputs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return (tokens, output) of each call of a layer; nothing where a call has more than tokens."""
    import torch

    calls: list[tuple[Tensor, Tensor] | None] = []

    def note(_layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        given = [item for item in (*args, *kwargs.values()) if item is not None]
        plain = len(given) == len(args) == 1 and isinstance(result, torch.Tensor) and given[0].dim() == 3
        calls.append((given[0].clone(), result.clone()) if plain else None)

    hook = layer.register_forward_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            module.eval()(*inputs)
    finally:
        hook.remove()
    found = [item for item in calls if item is not None]
    return found if len(found) == len(calls) else []


def _same_function(calls: Sequence[tuple[Tensor, Tensor]], joint: Any, out: Any, heads: int) -> Any:
    """Return plain attention with a layer's weights where it gives what the layer gave, else ``None``."""
    import torch

    from harness_torch.attention import HeadAttention

    for by_head in (False, True):
        made = HeadAttention.fused(joint, out, heads, by_head=by_head).eval()
        with torch.no_grad():
            alike = [
                torch.allclose(made(tokens, tokens, tokens)[0], wanted, rtol=0, atol=CLOSE * float(wanted.abs().max()))
                for tokens, wanted in calls
            ]
        if alike and all(alike):
            return made
    return None


def attentions(module: nn.Module) -> Iterator[Attention]:
    """Yield the attention layers whose parts are known by name."""
    from torch import nn

    for name, layer in module.named_modules():
        count = next((word for word in COUNTS if isinstance(getattr(layer, word, None), int)), None)
        for parts in PARTS:
            linear = [getattr(layer, part, None) for part in parts]
            if count and all(isinstance(part, nn.Linear) for part in linear):
                yield Attention(name, layer, count, parts[:3], parts[3])


def _ratios(module: nn.Module, found: Mapping[str, Attention], job: Job) -> dict[Any, Tensor]:
    """Return the signal-to-noise ratio of the channels that each output layer reads: the heads' own response."""
    import torch

    from harness_pruning.importance import ITEMS, labels_of, snr
    from harness_torch import tensors

    ratios: dict[Any, Tensor] = {}
    labels = labels_of(job, "snr")
    outs = [getattr(item.layer, item.out) for item in found.values()]

    def note(layer: Any, given: tuple[Any, ...]) -> None:
        ratios[layer] = snr(given[0], labels, -1)

    hooks = [out.register_forward_pre_hook(note) for out in outs]
    try:
        with torch.no_grad():
            module.eval()(*tensors(job.data.split("train").inputs, slice(ITEMS)))
    finally:
        for hook in hooks:
            hook.remove()
    return ratios
