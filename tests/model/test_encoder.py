"""The encoder against the same formulas written out plainly: keys and values of every column."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from headwater.model._encoder import GAP_BUCKETS, Encoder

DIM, LENGTH, TYPES = 8, 12, 3


def plain(encoder, items, valid, types, gaps, at):
    """(P, D) user vectors of one history, column by column and layer by layer."""
    columns = torch.arange(len(items))
    vectors = []
    for last in at.tolist():
        seen = valid & (columns <= last)
        if not seen.any():
            vectors.append(torch.zeros(DIM))
            continue
        logits = encoder.recency[(last - columns).clamp(min=0)]
        logits = logits + encoder.type_weight[types] + encoder.gap_weight[gaps]
        vectors.append(logits[seen].softmax(0) @ items[seen])
    linear = torch.stack(vectors)
    if not encoder.layers:
        return linear
    hidden = items + encoder.position[-len(items) :] + encoder.kind[types] + encoder.gap[gaps]
    # A query sees itself where it sees nothing else, and is never read then.
    mask = (columns <= columns[:, None]) & valid | torch.eye(len(items), dtype=torch.bool)
    for block in encoder.blocks:
        parts = block.qkv(block.attention_norm(hidden)).chunk(3, dim=-1)
        q, k, v = (part.view(len(items), block.heads, -1).transpose(0, 1) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        hidden = hidden + block.project(mixed.transpose(0, 1).flatten(1))
        hidden = hidden + block.narrow(F.gelu(block.widen(block.mlp_norm(hidden))))
    deep = encoder.out(encoder.norm(hidden))[at]
    some = (valid & (columns <= at[:, None])).any(-1, keepdim=True)
    return linear + deep * some


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_vectors_and_gradients_are_those_of_the_formulas(layers):
    torch.manual_seed(0)
    encoder = Encoder(DIM, layers, 2, LENGTH, TYPES).double()
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    lengths = torch.tensor([0, 1, 4, 9])
    width = 9
    valid = torch.arange(width) >= width - lengths[:, None]
    items = torch.randn(4, width, DIM, dtype=torch.double, requires_grad=True)
    types = torch.randint(TYPES, (4, width))
    gaps = torch.randint(GAP_BUCKETS, (4, width))
    at = torch.tensor([[8, 3], [8, 8], [6, 8], [0, 5]])
    taught = torch.randn(4, 2, DIM, dtype=torch.double)

    def told(found):
        gradients = torch.autograd.grad(
            (found * taught).sum(), [items, *encoder.parameters()], allow_unused=True
        )
        return found.detach(), [g for g in gradients if g is not None]

    found, gradients = told(encoder(items, valid, types, gaps, at))
    rows = zip(items, valid, types, gaps, at, strict=True)
    expected, plain_gradients = told(torch.stack([plain(encoder, *row) for row in rows]))
    torch.testing.assert_close(found, expected)
    for own, other in zip(gradients, plain_gradients, strict=True):
        torch.testing.assert_close(own, other)
    assert not gradients[0][~valid].any(), "what stands in an empty column is never read"
