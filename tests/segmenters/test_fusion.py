"""The fusion alone: what steers SAM 2's decoder, and what never changes a result."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from rsvp.platform.files import first_fault
from rsvp.segmenters.fusion import BoxPrior, Fusion, FusionConfig, TextStates

CHANNELS, WORDS = 32, 12


def fusion(*, trained: bool = True, **shape: int) -> Fusion:
    """A small one; as training leaves it, every output says something."""
    torch.manual_seed(0)
    settings = {"width": 16, "blocks": 2, "heads": 4, "queries": 4, "grid": 8, **shape}
    settings = {"channels": CHANNELS, "text_width": WORDS, **settings}
    net = Fusion(FusionConfig(**settings))
    if trained:
        with torch.no_grad():
            for weight in net.parameters():
                weight.add_(0.2 * torch.randn(weight.shape))
    return net


def inputs(n: int, *, views: int = 1, words: int = 5, points: int = 3, side=(8, 8)) -> dict:
    """What `Fusion.forward` takes, for n proposals; the first of a larger n are those of n."""
    draw = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw)

    def rows(*shape: int) -> torch.Tensor:  # one draw a row, so that a prefix is a prefix
        own = [torch.Generator().manual_seed(100 + row) for row in range(n)]
        return torch.stack([torch.randn(shape, generator=g) for g in own])

    low = rows(2).sigmoid() * 0.5
    return {
        "embedding": random(views, CHANNELS, *side),
        "positions": random(1, CHANNELS, *side),
        "view": torch.arange(n) % views,
        "prompt": rows(points, CHANNELS),
        "boxes": torch.cat([low, low + 0.4], dim=1),
        "texts": TextStates(rows(words, WORDS), torch.ones(n, words, dtype=torch.bool)),
    }


def close(one, other) -> None:
    for name in ("dense", "extra", "presence", "match"):
        torch.testing.assert_close(
            getattr(one, name), getattr(other, name), atol=1e-5, rtol=1e-5, msg=name
        )


def row_of(steering, row: slice):
    return steering._replace(
        **{k: getattr(steering, k)[row] for k in ("dense", "extra", "presence", "match")}
    )


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 0}, "'width' should be greater than or equal to 1"),
        ({"blocks": -1}, "'blocks' should be greater than or equal to 1"),
        ({"heads": 2.0}, "'heads' should be int, found float"),
        ({"grid": True}, "'grid' should be int, found bool"),
        ({"text_width": "12"}, "'text_width' should be int, found str"),
        ({"channels": None}, "'channels' should be int, found NoneType"),
        ({"width": 10, "heads": 4}, "the width 10 does not divide into 4 heads"),
        ({"queries": 1}, "'queries' should be greater than or equal to 2"),
        ({"blocks": 65}, "'blocks' should be less than or equal to 64"),
        ({"width": 10**12}, "'width' should be less than or equal to 65536"),
        ({"depth": 3}, "'depth' Extra inputs are not permitted"),
    ],
)
def test_settings_that_cannot_be(settings, said) -> None:
    with pytest.raises(ValidationError) as caught:
        FusionConfig(**{"channels": 32, "text_width": 12, **settings})
    assert first_fault(caught.value) == said


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize("points", [1, 2, 5])
@pytest.mark.parametrize(("side", "grid"), [((8, 8), 8), ((5, 9), 32), ((16, 12), 4)])
def test_shapes(points, side, grid) -> None:
    net = fusion(grid=grid)
    found = net(**inputs(3, views=2, points=points, side=side))
    assert found.dense.shape == (3, CHANNELS, *side)
    assert found.extra.shape == (3, 3, 16)
    assert found.presence.shape == (3,)
    assert found.match.shape == (3, min(side[0], grid), min(side[1], grid))
    assert all(part.isfinite().all() for part in found)


def test_large_features_are_pooled_to_the_grid_before_texts_meet_them() -> None:
    net = fusion(grid=4)
    seen = []
    net.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[1].shape))
    large = inputs(2, side=(16, 16))
    found = net(**large)
    assert seen == [(2, 16, 16)]
    small = {
        **large,
        "embedding": F.avg_pool2d(large["embedding"], 4),
        "positions": F.avg_pool2d(large["positions"], 4),
    }
    same = net(**small)
    torch.testing.assert_close(found.extra, same.extra)
    torch.testing.assert_close(found.match, same.match)
    torch.testing.assert_close(found.presence, same.presence)


def test_no_proposals() -> None:
    assert fusion()(**{**inputs(1), **empty_rows()}).dense.shape == (0, CHANNELS, 8, 8)


def empty_rows() -> dict:
    one = inputs(1)
    texts = TextStates(one["texts"].states[:0], one["texts"].attention_mask[:0])
    return {**{k: one[k][:0] for k in ("view", "prompt", "boxes")}, "texts": texts}


# ---------------------------------------------------------------- nothing at first


def test_an_untrained_one_says_nothing() -> None:
    net = fusion(trained=False)
    found = net(**inputs(3))
    assert not found.dense.any()
    assert found.extra.any()  # only their values are nothing yet
    assert not any(value(found.extra).any() for value in net.values)


def test_a_trained_one_says_something() -> None:
    found = fusion()(**inputs(3))
    assert found.dense.std() > 0.01


# ---------------------------------------------------------------- company and padding


def test_padding_changes_nothing() -> None:
    net = fusion()
    plain = inputs(3, words=4)
    states = F.pad(plain["texts"].states, (0, 0, 0, 6), value=7.0)  # whatever stands there
    real = F.pad(plain["texts"].attention_mask, (0, 6), value=False)
    close(net(**{**plain, "texts": TextStates(states, real)}), net(**plain))


def test_every_proposal_gets_the_same_answer_alone_and_in_a_batch() -> None:
    net = fusion()
    batch = inputs(16, views=3)
    together = net(**batch)
    for row in range(16):
        here = slice(row, row + 1)
        texts = TextStates(batch["texts"].states[here], batch["texts"].attention_mask[here])
        own = {k: batch[k][here] for k in ("view", "prompt", "boxes")}
        close(net(**{**batch, **own, "texts": texts}), row_of(together, here))


def test_every_proposal_sees_its_own_view() -> None:
    net = fusion()
    batch = inputs(4, views=4)
    together = net(**batch)
    for row in range(4):
        alone = {**inputs(4, views=4), "embedding": batch["embedding"][row : row + 1]}
        alone["view"] = torch.zeros(4, dtype=torch.int64)
        here = slice(row, row + 1)
        close(row_of(net(**alone), here), row_of(together, here))


def test_a_row_without_a_text_is_as_with_no_text_at_all() -> None:
    net = fusion()
    batch = inputs(2)
    silent = TextStates(batch["texts"].states, torch.zeros_like(batch["texts"].attention_mask))
    none = TextStates(batch["texts"].states[:, :0], batch["texts"].attention_mask[:, :0])
    found = net(**{**batch, "texts": silent})
    close(found, net(**{**batch, "texts": none}))
    assert not found.match.any()
    assert found.dense.isfinite().all()


def test_the_text_the_box_and_the_prompt_each_have_a_say() -> None:
    net = fusion()
    plain = inputs(2)
    other = {
        "texts": plain["texts"]._replace(states=plain["texts"].states.flip(0)),
        "boxes": plain["boxes"].flip(0),
        "prompt": plain["prompt"].flip(0),
    }
    before = net(**plain)
    for name, value in other.items():
        after = net(**{**plain, name: value})
        for part in ("dense", "extra", "presence"):
            gap = (getattr(after, part) - getattr(before, part)).abs().max()
            assert gap > 1e-3, (name, part)


def test_the_order_of_words_counts() -> None:
    net = fusion()
    plain = inputs(1)
    turned = plain["texts"]._replace(states=plain["texts"].states.flip(1))
    gap = net(**plain).extra - net(**{**plain, "texts": turned}).extra
    assert gap.abs().max() > 1e-3


# ---------------------------------------------------------------- the prior


def test_the_prior_is_0_inside_the_box_and_falls_outside() -> None:
    prior = BoxPrior(4)(torch.tensor([[0.25, 0.25, 0.75, 0.5]]), 16, 16)
    assert prior.shape == (1, 4, 1, 256)
    grid = prior[0, :, 0].unflatten(-1, (16, 16)).detach()
    assert not grid[:, 4:8, 4:12].any()
    assert (grid <= 0).all()
    right, below = grid[:, 5, 12:], grid[:, 8:, 6]
    for ray in (right, below):
        assert (ray < 0).all()
        assert (ray.diff(dim=-1) < 0).all()
    assert (below[:, 0] < right[:, 0]).all()  # the box is half as high as it is wide


def test_the_prior_scales_with_the_box() -> None:
    net = BoxPrior(2)
    # Two boxes, the second one twice the first in every way: so are the distances from it.
    small = net(torch.tensor([[0.0, 0.0, 0.125, 0.25]]), 16, 16).unflatten(-1, (16, 16))
    large = net(torch.tensor([[0.0, 0.0, 0.25, 0.5]]), 8, 8).unflatten(-1, (8, 8))
    torch.testing.assert_close(small[..., :8, :8], large)
    same = net(torch.tensor([[0.0, 0.0, 0.25, 0.5]]), 16, 16).unflatten(-1, (16, 16))
    assert (same >= small).all()
    assert (same > small)[..., 10, 10].all()


@pytest.mark.parametrize(
    "box", [(0.5, 0.5, 0.5, 0.5), (0.2, 0.3, 0.2 + 1e-9, 0.9), (-3.0, -3.0, -2.0, -2.0)]
)
def test_the_prior_of_a_box_of_no_size_or_off_the_view_is_finite(box) -> None:
    prior = BoxPrior(4)(torch.tensor([box]), 8, 8)
    assert prior.isfinite().all()
    assert prior.min() >= -100 * F.softplus(torch.tensor(2.0)) - 1e-3


# ---------------------------------------------------------------- every part is used and learns


def loss_of(net: Fusion) -> torch.Tensor:
    found = net(**inputs(3, views=2))
    values = [value(found.extra) for value in net.values]
    said = sum(value.square().mean() + value.mean() for value in values)
    asked = sum(key(found.extra).square().mean() for key in net.keys)
    return found.dense.square().mean() + found.dense.mean() + said + asked + found.presence.mean()


def test_every_parameter_learns_once_the_outputs_say_something() -> None:
    net = fusion(trained=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    loss_of(net).backward()
    assert all(layer.weight.grad.any() for layer in (net.to_dense, *net.values))
    assert net.presence.weight.grad.any()
    optimizer.step()
    optimizer.zero_grad()
    loss_of(net).backward()
    still = {
        name for name, weight in net.named_parameters()
        if weight.grad is None or not weight.grad.any()
    }  # fmt: skip
    assert still == set()


def test_the_way_back_from_features_to_text_is_used() -> None:
    net = fusion(blocks=1)
    before = net(**inputs(2)).dense
    with torch.no_grad():
        net.blocks[0].back.out.weight.zero_()
    assert (net(**inputs(2)).dense - before).abs().max() > 1e-3


# ---------------------------------------------------------------- what the decoder is shown


class Attending(torch.nn.Module):
    """As one of the decoder's self-attentions is called."""

    def __init__(self) -> None:
        super().__init__()
        self.num_attention_heads = 2
        self.q_proj = torch.nn.Linear(CHANNELS, CHANNELS)

    def forward(self, *, query, key, value):
        return query * 2, None


def decoder(layers: int = 2) -> torch.nn.Module:
    net = torch.nn.Module()
    net.transformer = torch.nn.Module()
    net.transformer.layers = torch.nn.ModuleList(torch.nn.Module() for _ in range(layers))
    for layer in net.transformer.layers:
        layer.self_attn = Attending()
    return net


def asked(net: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    for layer in net.transformer.layers:
        tokens, _ = layer.self_attn(query=tokens, key=tokens, value=tokens)
    return tokens


def hooks_of(net: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


@pytest.mark.parametrize("trained", [False, True])
def test_extra_tokens_are_seen_inside_only_and_nothing_at_first(trained) -> None:
    net, seen = fusion(trained=trained), decoder()
    tokens = torch.randn(3, 1, 6, CHANNELS)
    extra = torch.randn(3, 3, 16)
    plain = asked(seen, tokens)
    with net.extra_tokens(seen, extra):
        assert hooks_of(seen) == 2
        shown = asked(seen, tokens)
    assert torch.equal(shown, plain) is not trained
    assert hooks_of(seen) == 0
    assert torch.equal(asked(seen, tokens), plain)


def test_extra_tokens_are_attended_each_by_its_own_row() -> None:
    net, seen = fusion(), decoder(1)
    net.keys, net.values = net.keys[:1], net.values[:1]
    tokens, extra = torch.randn(3, 1, 6, CHANNELS), torch.randn(3, 3, 16)
    with net.extra_tokens(seen, extra):
        shown = asked(seen, tokens) - 2 * tokens
    attention = seen.transformer.layers[0].self_attn
    for row in range(3):
        query = attention.q_proj(tokens[row, 0]).view(6, 2, 16)
        key, value = (m[0](extra[row]).view(3, 2, 16) for m in (net.keys, net.values))
        weights = (torch.einsum("thc,ehc->hte", query, key) / 4).softmax(-1)
        expected = torch.einsum("hte,ehc->thc", weights, value).flatten(1)
        torch.testing.assert_close(shown[row, 0], expected, atol=1e-5, rtol=1e-4)


def test_nothing_is_left_behind_by_an_error() -> None:
    net, seen = fusion(), decoder()
    with pytest.raises(KeyError), net.extra_tokens(seen, torch.randn(1, 3, 16)):
        raise KeyError
    assert hooks_of(seen) == 0


@pytest.mark.parametrize("layers", [1, 3])
def test_a_decoder_of_another_depth_is_refused_and_left_as_it_was(layers) -> None:
    net, seen = fusion(), decoder(layers)
    with pytest.raises(ValueError, match="zip"), net.extra_tokens(seen, torch.randn(1, 3, 16)):
        pytest.fail("it went on")
    assert hooks_of(seen) == 0
