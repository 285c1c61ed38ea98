"""The trained part of the VLSM: fuses text with box priors between SAM 2's encoders and decoder.

Tokens (the prompt encoder's points and box corners, the text, a few learned queries) and the
image's spatial tokens attend to each other in a stack of blocks, as in "Segment Anything" and
"Grounding DINO": self-attention of the tokens; cross-attention to the image, with a box prior added
to the attention logits; an MLP; and cross-attention from the image to the tokens. Before the
blocks, each spatial token is matched with the whole text by a scaled cosine, which is easy to learn
where it is supervised. The output steers the frozen mask decoder in two ways, both zero at first:

- a residual on the dense prompt, whose projection starts at zero;
- extra prompt tokens that the decoder's own tokens attend to, whose values start at zero (zero-init
  attention, after LLaMA-Adapter, https://arxiv.org/abs/2303.16199). They have a softmax of their
  own: in the decoder's, a token of zeros would still receive some attention.

So an untrained fusion leaves SAM 2 unchanged, bit for bit. A presence logit says whether the object
that the text names is in the box at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

# Far above any real fusion; a file with larger values is broken and would fill the memory.
_Size = Annotated[int, Field(ge=1, le=65536)]


class FusionConfig(BaseModel, frozen=True, strict=True, extra="forbid"):
    """The sizes of a fusion network.

    Attributes:
        channels: of SAM 2's image embedding.
        text_width: of the text encoder's states.
        decoder_layers: of the mask decoder's two-way transformer.
        width: of the tokens inside.
        blocks, heads: how many, and of each block's attentions.
        queries: learned tokens; the first predicts the presence, the others go to the decoder.
        mlp_ratio: the MLP's inner width in widths.
        grid: features are pooled to at most this many spatial tokens a side.
    """

    channels: _Size
    text_width: _Size
    decoder_layers: _Size = 2
    width: _Size = 128
    blocks: Annotated[int, Field(ge=1, le=64)] = 2
    heads: _Size = 4
    queries: Annotated[int, Field(ge=2, le=65536)] = 5
    mlp_ratio: _Size = 4
    grid: _Size = 32

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> FusionConfig:
        if self.width % self.heads:
            raise ValueError(f"the width {self.width} does not divide into {self.heads} heads")
        return self


class TextStates(NamedTuple):
    """One text a proposal, as a frozen text encoder encodes it.

    Attributes:
        states: (N, T, text_width) float32.
        attention_mask: (N, T) bool, False for padding; a row may be all False.
    """

    states: Tensor
    attention_mask: Tensor


class FusionOutput(NamedTuple):
    """What steers the mask decoder for N proposals.

    Attributes:
        dense: (N, channels, h, w), added to the dense prompt.
        extra: (N, queries - 1, width), the extra prompt tokens.
        presence: (N,) logits: the object that the text names is in the box.
        match: (N, gh, gw) logits: the text names what is at this spatial token; 0 without text.
        cosines: (B, N, gh * gw), scaled cosines of every view's spatial tokens with every text.
    """

    dense: Tensor
    extra: Tensor
    presence: Tensor
    match: Tensor
    cosines: Tensor


class Attention(nn.Module):
    """Multi-head attention on scaled-dot-product kernels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from (N, Q, width) to (N, K, width).

        Args:
            mask: broadcasts to (N, heads, Q, K): bool, True where to attend, or a float added to
                the logits.
        """
        q = _split(self.query(queries), self.heads)
        k, v = (_split(t, self.heads) for t in self.key_value(context).chunk(2, dim=-1))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        projected: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return projected


class FusionBlock(nn.Module):
    """Self-attention of the tokens, cross-attention to the image, MLP, cross-attention back."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.among, self.to_image, self.back = (Attention(width, heads) for _ in range(3))
        self.norm_among, self.norm_to_image, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.norm_image, self.norm_back, self.norm_tokens = (nn.LayerNorm(width) for _ in range(3))
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width)
        )

    def forward(
        self, tokens: Tensor, image: Tensor, attention_mask: Tensor, prior: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update the tokens and the image.

        Args:
            tokens: (N, T, width).
            image: (N, S, width), S spatial tokens.
            attention_mask: (N, 1, 1, T) bool, False for padding.
            prior: (N, heads, 1, S) added to the attention logits of tokens to the image.
        """
        normed = self.norm_among(tokens)
        tokens = tokens + self.among(normed, normed, attention_mask)
        tokens = tokens + self.to_image(self.norm_to_image(tokens), self.norm_image(image), prior)
        tokens = tokens + self.mlp(self.norm_mlp(tokens))
        image = image + self.back(self.norm_back(image), self.norm_tokens(tokens), attention_mask)
        return tokens, image


class BoxPrior(nn.Module):
    """Attention bias that falls with the distance outside the box; a learned slope per head."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.linspace(-2.0, 2.0, heads))

    def forward(self, boxes: Tensor, height: int, width: int) -> Tensor:
        """(N, heads, 1, height * width) <= 0, and 0 inside the box.

        Distances are in half sides of the box, so that the prior scales with the box.

        Args:
            boxes: (N, 4) xyxy relative to the view, 0 to 1.
        """
        xs, ys = (
            (torch.arange(n, device=boxes.device, dtype=boxes.dtype) + 0.5) / n
            for n in (width, height)
        )
        across = _outside(xs, boxes[:, 0], boxes[:, 2])[:, None, :]
        down = _outside(ys, boxes[:, 1], boxes[:, 3])[:, :, None]
        squared = (across**2 + down**2).clamp(max=100.0).flatten(1)
        return -F.softplus(self.slope)[None, :, None, None] * squared[:, None, None, :]


class Matching(nn.Module):
    """How well each spatial token matches a text: a scaled cosine, as between CLIP's towers."""

    def __init__(self, channels: int, text_width: int, width: int) -> None:
        super().__init__()
        self.place, self.text = (
            nn.Sequential(
                nn.LayerNorm(n), nn.Linear(n, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )
            for n in (channels, text_width)
        )
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.offset = nn.Parameter(torch.tensor(-2.0))

    def forward(self, spatial_tokens: Tensor, texts: TextStates) -> Tensor:
        """(B, N, S) scaled cosines of every spatial token of every view with every text.

        Args:
            spatial_tokens: (B, S, channels).
        """
        words = self.text(texts.states) * texts.attention_mask.unsqueeze(-1)
        text = F.normalize(words.sum(1), dim=-1)
        image = F.normalize(self.place(spatial_tokens), dim=-1)
        return text.to(image.dtype) @ image.transpose(1, 2) * self.scale.exp()

    def own_logits(self, cosines: Tensor, view: Tensor, texts: TextStates) -> Tensor:
        """(N, S) logits of each text on its own view; 0 for an empty text."""
        has_text: Tensor = texts.attention_mask.any(dim=1, keepdim=True)
        rows = torch.arange(len(view), device=view.device)
        return (cosines[view, rows] + self.offset) * has_text


class Fusion(nn.Module):
    """The whole fusion network; see the module's docstring."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = c = config
        # The scale of features differs between networks by orders of magnitude.
        self.from_image = nn.Sequential(nn.LayerNorm(c.channels), nn.Linear(c.channels, c.width))
        self.from_place = nn.Linear(c.channels, c.width)
        self.from_prompt = nn.Linear(c.channels, c.width)
        self.from_text = nn.Sequential(nn.LayerNorm(c.text_width), nn.Linear(c.text_width, c.width))
        self.matching = Matching(c.channels, c.text_width, c.width)
        self.from_match = nn.Parameter(torch.randn(c.width) * 0.1)
        self.kinds = nn.Parameter(torch.randn(2, c.width) * 0.02)  # type embeddings: prompt, text
        self.queries = nn.Parameter(torch.randn(c.queries, c.width) * 0.5)
        self.prior = BoxPrior(c.heads)
        self.blocks = nn.ModuleList(
            FusionBlock(c.width, c.heads, c.mlp_ratio) for _ in range(c.blocks)
        )
        self.norm_tokens, self.norm_image = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.presence = nn.Linear(c.width, 1)
        self.to_dense = nn.Linear(c.width, c.channels)
        self.keys = nn.ModuleList(nn.Linear(c.width, c.channels) for _ in range(c.decoder_layers))
        self.values = nn.ModuleList(nn.Linear(c.width, c.channels) for _ in range(c.decoder_layers))
        for layer in (self.to_dense, *self.values):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        embedding: Tensor,
        positions: Tensor,
        *,
        view: Tensor,
        prompt: Tensor,
        boxes: Tensor,
        texts: TextStates,
        residual_scale: float | None = None,
    ) -> FusionOutput:
        """Steer N proposals on B encoded views.

        Args:
            embedding: (B, channels, h, w), the image encoder's lowest level.
            positions: (1, channels, h, w), its positional encoding.
            view: (N,) int64, which of the B views each proposal is on.
            prompt: (N, P, channels), the prompt encoder's tokens.
            boxes: (N, 4) xyxy relative to the view; the whole view where there are only points.
            texts: one a proposal.
            residual_scale: multiplies the dense residual, together with the probability of the
                presence: SAM 2 is left unchanged where the named object is absent. None, as in
                training, applies the residual as it is.
        """
        height, width = embedding.shape[-2:]
        side = min(height, self.config.grid), min(width, self.config.grid)
        features = _pooled(embedding, side)
        cosines = self.matching(features, texts)
        match = self.matching.own_logits(cosines, view, texts)
        spatial = self.from_image(features) + self.from_place(_pooled(positions, side))
        image = spatial[view] + match.unsqueeze(-1) * self.from_match
        tokens, attention_mask = self._tokens(prompt, texts)
        prior = self.prior(boxes, *side).to(tokens.dtype)
        for block in self.blocks:
            tokens, image = block(tokens, image, attention_mask, prior)
        queries = self.norm_tokens(tokens[:, -self.config.queries :])
        dense = self.to_dense(self.norm_image(image)).transpose(1, 2).unflatten(-1, side)
        best = (match + prior[:, 0, 0]).logsumexp(1)  # over the spatial tokens in or near the box
        presence = self.presence(queries[:, 0])[:, 0] + best
        scale = embedding.flatten(1).std(dim=1)[view]  # the residual in units of the embedding
        if residual_scale is not None:
            scale = scale * residual_scale * presence.sigmoid()
        residual = dense * scale[:, None, None, None]
        if side != (height, width):
            size = (height, width)
            residual = F.interpolate(residual, size=size, mode="bilinear", align_corners=False)
        return FusionOutput(residual, queries[:, 1:], presence, match.view(-1, *side), cosines)

    def _tokens(self, prompt: Tensor, texts: TextStates) -> tuple[Tensor, Tensor]:
        """(N, T, width) prompt, text and queries, and their (N, 1, 1, T) attention mask."""
        n, length = texts.attention_mask.shape
        text = self.from_text(texts.states) + self.kinds[1] + _sinusoids(length, self.kinds)
        points = self.from_prompt(prompt) + self.kinds[0]
        tokens = torch.cat([points, text, self.queries.expand(n, -1, -1)], dim=1)
        before, after = prompt.shape[1], self.config.queries
        attention_mask = F.pad(texts.attention_mask, (before, after), value=True)
        return tokens, attention_mask[:, None, None, :]

    @contextlib.contextmanager
    def extra_tokens(self, decoder: Any, extra: Tensor) -> Iterator[None]:
        """Let the tokens of SAM 2's mask decoder attend to the extra ones, inside this context.

        Args:
            decoder: a `Sam2MaskDecoder` that is called on N proposals, one in each batch row.
            extra: (N, E, width).
        """
        layers = decoder.transformer.layers
        with contextlib.ExitStack() as hooks:
            for layer, key, value in zip(layers, self.keys, self.values, strict=True):
                attend = partial(_add_extra_attention, keys=key(extra), values=value(extra))
                hook = layer.self_attn.register_forward_hook(attend, with_kwargs=True)
                hooks.callback(hook.remove)
            yield


def _add_extra_attention(
    attention: Any,
    _positional: tuple[Any, ...],
    named: dict[str, Any],
    output: tuple[Tensor, Tensor | None],
    *,
    keys: Tensor,
    values: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Hook: add zero-initialised cross-attention to the extra prompt tokens."""
    heads = attention.num_attention_heads
    query = _split(attention.q_proj(named["query"]).flatten(0, 1), heads)
    extra = F.scaled_dot_product_attention(query, _split(keys, heads), _split(values, heads))
    attended, weights = output
    return attended + extra.transpose(1, 2).reshape(attended.shape), weights


def _split(tokens: Tensor, heads: int) -> Tensor:
    """(N, T, width) -> (N, heads, T, width / heads)."""
    return tokens.view(*tokens.shape[:2], heads, tokens.shape[-1] // heads).transpose(1, 2)


def _outside(centres: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(N, n) distances of each centre outside low..high, in half sides; 0 inside."""
    half = ((high - low) / 2).clamp(min=1e-3)[:, None]
    beyond = torch.maximum(low[:, None] - centres, centres - high[:, None])
    return beyond.clamp(min=0) / half


def _pooled(features: Tensor, side: tuple[int, int]) -> Tensor:
    """(B, channels, h, w) -> (B, S, channels), S = side[0] * side[1] spatial tokens."""
    if features.shape[-2:] != side:
        features = F.adaptive_avg_pool2d(features, side)
    return features.flatten(2).transpose(1, 2)


def _sinusoids(length: int, like: Tensor) -> Tensor:
    """(length, width) positional encoding of "Attention Is All You Need", scaled down.

    Some states, token embeddings above all, carry no information on the order of the tokens.
    """
    half = like.shape[-1] // 2
    rates = torch.exp(torch.arange(half, device=like.device) * (-9.21 / half))
    angles = torch.arange(length, device=like.device)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], dim=1) * 0.1
    return F.pad(waves, (0, like.shape[-1] - 2 * half)).to(like.dtype)
