"""The causal encoder: from a history of behaviours to user vectors.

It is the sum of two paths over the same item vectors x_t:

* a *linear* one, u = sum_t w_t x_t with w = softmax over the history of a learned
  weight for how long ago (in events), which type of event and how soon the next one came:
  the seed formula "a user is a weighted sum of behaviours", sum_t w_t = 1;
* a *deep* one, a causal transformer (SASRec, Kang and McAuley, ICDM 2018;
  pre-norm) over item vector + position + event type + time gap.

With no layers only the linear path is left, and the formula is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GAP_BUCKETS = 16
"""Times from an event to the next one, in powers of 3 from a second to three months."""


class Encoder(nn.Module):
    """User vectors (B, P, D) at chosen positions of histories (B, L)."""

    def __init__(self, dim: int, layers: int, heads: int, length: int, types: int) -> None:
        super().__init__()
        self.length = length
        self.recency = nn.Parameter(-torch.log1p(torch.arange(length, dtype=torch.float32)))
        self.type_weight = nn.Parameter(torch.zeros(types))
        self.gap_weight = nn.Parameter(torch.zeros(GAP_BUCKETS))
        if layers:
            self.position = nn.Parameter(torch.randn(length, dim) * 0.02)
            self.kind = nn.Parameter(torch.randn(types, dim) * 0.02)
            self.gap = nn.Parameter(torch.randn(GAP_BUCKETS, dim) * 0.02)
            self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))
            self.norm = nn.LayerNorm(dim)
            self.out = nn.Linear(dim, dim)
            nn.init.normal_(self.out.weight, std=0.02)
            nn.init.zeros_(self.out.bias)
        self.layers = layers
        self.heads = heads

    def forward(
        self,
        items: Tensor,
        valid: Tensor,
        types: Tensor,
        gaps: Tensor,
        at: Tensor,
        dropout: float = 0.0,
    ) -> Tensor:
        """Encodes histories whose newest event is in the last column.

        Args:
            items: (B, L, D) item vectors, anything where not valid.
            valid: (B, L) bool.
            types, gaps: (B, L) event type codes and gap buckets.
            at: (B, P) the columns to give user vectors for: each sees its own column and
                those before it.
            dropout: share of the deep path's activations that are dropped, where SASRec does.
        """
        length = items.shape[1]
        columns = torch.arange(length)
        distance = at[:, :, None] - columns
        seen = valid[:, None, :] & (distance >= 0)  # (B, P, L)
        some = seen.any(-1, keepdim=True)
        sort = types * GAP_BUCKETS + gaps
        sort_weight = (self.type_weight[:, None] + self.gap_weight).flatten()
        logits = self.recency[distance.clamp(min=0)] + sort_weight[sort][:, None, :]
        # A history with nothing in it has weights of nothing: zero, not NaN.
        weights = logits.masked_fill(~seen, -1e9).softmax(-1) * some
        users = weights @ items
        if not self.layers:
            return users
        sort_vector = (self.kind[:, None] + self.gap).flatten(0, 1)
        hidden = items + self.position[self.length - length :] + sort_vector[sort]
        hidden = F.dropout(hidden, dropout)
        causal = valid[:, None, :] & (columns <= columns[:, None])
        for block in self.blocks[:-1]:
            hidden = block(hidden, hidden, causal, dropout)
        # Nothing reads what the last block would make of the other columns.
        picked = hidden.gather(1, at[:, :, None].expand(-1, -1, hidden.shape[2]))
        deep: Tensor = self.out(self.norm(self.blocks[-1](picked, hidden, seen, dropout)))
        return users + deep * some


class Block(nn.Module):
    """One pre-norm transformer layer, for the columns that are asked for.

    Keys and values are never made. With z a normalised column and W_k, W_v those of a head, a
    query q scores q . W_k z = (W_k^T q) . z, and gets sum_t a_t W_v z_t = W_v (sum_t a_t z_t):
    two small products a query, of which there are few, and none a column.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.project = nn.Linear(dim, dim, bias=False)
        self.mlp_norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, 2 * dim)
        self.narrow = nn.Linear(2 * dim, dim)

    def forward(self, asked: Tensor, hidden: Tensor, seen: Tensor, dropout: float) -> Tensor:
        """(B, P, D) new states of columns (B, P, D), which see (B, P, L) of all (B, L, D)."""
        batch, count, dim = asked.shape
        heads, width = self.heads, dim // self.heads
        to_query, to_key, to_value = self.qkv.weight.view(3, heads, width, dim)
        scale, shift = self.attention_norm.weight, self.attention_norm.bias
        # The shift would add the same to all scores of a query; the scale moves into the query.
        normed = F.layer_norm(hidden, (dim,))
        queries = self.attention_norm(asked).view(-1, dim) @ to_query.reshape(dim, dim).T
        queries = queries.view(-1, heads, width).transpose(0, 1) @ to_key * (scale * width**-0.5)
        queries = queries.view(heads, batch, count, dim).transpose(0, 1).reshape(batch, -1, dim)
        scores = (queries @ normed.transpose(1, 2)).view(batch, heads, count, -1)
        weights = scores.masked_fill(~seen[:, None], -1e9).softmax(-1)
        mixed = weights.flatten(1, 2) @ normed * scale + shift  # (B, heads * P, D)
        mixed = mixed.view(batch, heads, -1, dim).transpose(0, 1).reshape(heads, -1, dim)
        mixed = (mixed @ to_value.transpose(1, 2)).transpose(0, 1).reshape(batch, count, dim)
        asked = asked + F.dropout(self.project(mixed), dropout)
        wide: Tensor = self.narrow(F.gelu(self.widen(self.mlp_norm(asked))))
        return asked + F.dropout(wide, dropout)
