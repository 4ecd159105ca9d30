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
        seen = valid[:, None, :] & (columns <= at[:, :, None])  # (B, P, L)
        distance = (at[:, :, None] - columns).clamp(min=0)
        logits = (
            self.recency[distance]
            + self.type_weight[types][:, None, :]
            + self.gap_weight[gaps][:, None, :]
        )
        # A history with nothing in it has weights of nothing: zero, not NaN.
        weights = logits.masked_fill(~seen, -1e9).softmax(-1) * seen.any(-1, keepdim=True)
        users = weights @ items
        if not self.layers:
            return users
        start = self.length - length
        hidden = items + self.position[start:] + self.kind[types] + self.gap[gaps]
        hidden = F.dropout(hidden * valid[:, :, None], dropout)
        causal = columns <= columns[:, None]
        # Every query sees itself, so that a padded one doesn't turn into NaN.
        mask = (causal & valid[:, None, :]) | torch.eye(length, dtype=torch.bool)
        mask = mask[:, None]
        for block in self.blocks:
            hidden = block(hidden, mask, dropout)
        picked = hidden.gather(1, at[:, :, None].expand(-1, -1, hidden.shape[2]))
        deep: Tensor = self.out(self.norm(picked))
        return users + deep * seen.any(-1, keepdim=True)

    def history_weights(self, valid: Tensor, types: Tensor, gaps: Tensor) -> Tensor:
        """(B, L) the linear path's weights w_t of a whole history; each row sums to 1."""
        length = valid.shape[1]
        distance = torch.arange(length - 1, -1, -1)
        logits = self.recency[distance] + self.type_weight[types] + self.gap_weight[gaps]
        return logits.masked_fill(~valid, -1e9).softmax(-1) * valid.any(-1, keepdim=True)


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.project = nn.Linear(dim, dim, bias=False)
        self.mlp_norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, 2 * dim)
        self.narrow = nn.Linear(2 * dim, dim)

    def forward(self, hidden: Tensor, mask: Tensor, dropout: float) -> Tensor:
        batch, length, dim = hidden.shape
        qkv = self.qkv(self.attention_norm(hidden))
        q, k, v = qkv.view(batch, length, 3, self.heads, dim // self.heads).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        mixed = self.project(mixed.transpose(1, 2).reshape(batch, length, dim))
        hidden = hidden + F.dropout(mixed, dropout)
        wide: Tensor = self.narrow(F.gelu(self.widen(self.mlp_norm(hidden))))
        return hidden + F.dropout(wide, dropout)
