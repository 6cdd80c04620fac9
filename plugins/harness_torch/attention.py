"""Self-attention whose heads are layers of their own size, so that single heads can leave it."""

from __future__ import annotations

# ruff: noqa: TID253  a module is pickled by its class, which must be importable; only functions import this file
import torch
from torch import Tensor, nn


class HeadAttention(nn.Module):
    """What ``nn.MultiheadAttention`` computes, written out; the heads together may be narrower than the tokens.

    Made from linear layers and matrix products, which every exporter reads.

    Args:
        width: Of query tokens and of the output.
        heads: Attention heads.
        size: Of one head.
        keys: Width of key tokens.
        values: Width of value tokens.
        bias: Whether the four projections have one.
        batch_first: Whether tokens come as [n, tokens, width] or as [tokens, n, width].
        dropout: Of the attention weights, in training.
    """

    in_proj_bias = None  # with it and the next line torch's encoder layers see that their fused path is not for this
    _qkv_same_embed_dim = False

    def __init__(
        self,
        width: int,
        heads: int,
        size: int,
        *,
        keys: int,
        values: int,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads, self.batch_first, self.dropout = heads, batch_first, dropout
        inner = heads * size
        self.query, self.key = nn.Linear(width, inner, bias), nn.Linear(keys, inner, bias)
        self.value, self.out = nn.Linear(values, inner, bias), nn.Linear(inner, width, bias)

    @classmethod
    def of(cls, layer: nn.MultiheadAttention) -> HeadAttention:
        """Return the same function as a layer of torch.

        Raises:
            ValueError: The layer adds a learned or a zero token to keys and values.
        """
        if layer.bias_k is not None or layer.add_zero_attn:
            raise ValueError("it adds a token of its own to keys and values")
        made = cls(
            layer.embed_dim, layer.num_heads, layer.head_dim, keys=layer.kdim, values=layer.vdim,
            bias=layer.in_proj_bias is not None, batch_first=layer.batch_first, dropout=layer.dropout,
        )  # fmt: skip
        weights = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
        if layer.in_proj_weight is not None:
            weights = layer.in_proj_weight.chunk(3)
        parts = (made.query, made.key, made.value)
        with torch.no_grad():
            for part, weight in zip(parts, weights, strict=True):
                part.weight.copy_(weight)
            if layer.in_proj_bias is not None:
                for part, bias in zip(parts, layer.in_proj_bias.chunk(3), strict=True):
                    part.bias.copy_(bias)
                made.out.bias.copy_(layer.out_proj.bias)
            made.out.weight.copy_(layer.out_proj.weight)
        return made.train(layer.training)

    @classmethod
    def fused(cls, joint: nn.Linear, out: nn.Linear, heads: int, *, by_head: bool = False) -> HeadAttention:
        """Return attention of tokens to themselves from one linear layer that makes queries, keys and values.

        Args:
            joint: Its rows are all queries, all keys, all values, each head after head.
            out: The layer after the heads.
            heads: How many.
            by_head: The rows are queries, keys and values of the first head, then of the next.
        """
        size = joint.out_features // (3 * heads)
        biased = joint.bias is not None or out.bias is not None
        made = cls(
            joint.in_features, heads, size, keys=joint.in_features, values=joint.in_features, bias=biased,
            batch_first=True,
        )  # fmt: skip

        def three(rows: Tensor) -> tuple[Tensor, ...]:
            if not by_head:
                return rows.chunk(3)
            return tuple(part.flatten(0, 1) for part in rows.unflatten(0, (heads, 3, size)).unbind(1))

        with torch.no_grad():
            for part in (made.query, made.key, made.value, made.out):
                if part.bias is not None:
                    part.bias.zero_()
            for part, weight in zip((made.query, made.key, made.value), three(joint.weight), strict=True):
                part.weight.copy_(weight)
            made.out.weight.copy_(out.weight)
            if joint.bias is not None:
                for part, bias in zip((made.query, made.key, made.value), three(joint.bias), strict=True):
                    part.bias.copy_(bias)
            if out.bias is not None:
                made.out.bias.copy_(out.bias)
        return made

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Map tokens to tokens, with the arguments of ``nn.MultiheadAttention``; weights are never returned."""
        del need_weights, average_attn_weights, is_causal  # a causal mask comes as attn_mask too
        if not self.batch_first:
            query, key, value = (item.transpose(0, 1) for item in (query, key, value))
        queries, keys, values = (
            self._split(self.query(query)),
            self._split(self.key(key)),
            self._split(self.value(value)),
        )
        scores = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5
        if attn_mask is not None:
            mask = attn_mask if attn_mask.dim() == 2 else attn_mask.unflatten(0, (-1, self.heads))
            scores = _masked(scores, mask)
        if key_padding_mask is not None:
            scores = _masked(scores, key_padding_mask[:, None, None])
        weights = nn.functional.dropout(scores.softmax(-1), self.dropout, self.training)
        result = self.out((weights @ values).transpose(1, 2).flatten(2))
        return result if self.batch_first else result.transpose(0, 1), None


class SelfAttention(nn.Module):
    """Attention of tokens to themselves, in the place of a layer of one input and one output.

    Args:
        attention: What it computes with.
    """

    def __init__(self, attention: HeadAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [n, tokens, width] to tokens."""
        result: Tensor = self.attention(tokens, tokens, tokens)[0]
        return result


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
