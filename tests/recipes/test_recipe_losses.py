"""The reasoner's losses on inputs whose loss is known."""

from __future__ import annotations

import pytest
import torch

from recipes.embedded import losses


def test_a_perfect_box_costs_nothing() -> None:
    cell = torch.tensor([0, 55])
    center = torch.tensor([[0.05, 0.05], [0.55, 0.55]]).repeat(1, 2)
    true = torch.tensor([[0.0, 0.0, 0.2, 0.1], [0.3, 0.4, 0.9, 0.8]])
    exact = (true - center) / 0.2
    assert losses.box_loss(exact, true, cell).item() == pytest.approx(0, abs=1e-4)
    assert losses.box_loss(exact + 0.5, true, cell).item() > 0.3


def test_a_near_coordinate_is_nearly_right() -> None:
    number_ids = torch.arange(202).view(2, 101)
    labels = torch.tensor([40])

    def loss(guess: int, *, coordinates: bool) -> float:
        logs = torch.full((1, 210), -1.0)
        logs[0, guess] = 5.0
        of = torch.tensor([coordinates])
        return losses.token_loss(logs.log_softmax(-1), labels, of, number_ids).item()

    assert loss(40, coordinates=True) < loss(41, coordinates=True) < loss(43, coordinates=True)
    assert loss(41, coordinates=False) == pytest.approx(loss(43, coordinates=False))
    assert loss(141, coordinates=True) == pytest.approx(loss(43, coordinates=True))  # a bracket


def test_tag_numbers_are_read_where_they_are_drawn() -> None:
    true = torch.tensor([[0, 3, 0, 7]])
    logits = torch.zeros(1, 4, 25)
    logits.scatter_(2, true[..., None], 20.0)
    loss, right = losses.reading_loss(logits, true)
    assert loss.item() == pytest.approx(0, abs=1e-3)
    assert right == 1
    loss, right = losses.reading_loss(logits.roll(1, 1), true)
    assert loss.item() > 10
    assert right == 0
    assert losses.reading_loss(logits, torch.zeros_like(true))[1] == 0  # nothing to read


def test_attention_on_the_target_cells_costs_nothing() -> None:
    cell_objects = torch.tensor([[-1, 0, 0, 1]])
    objects = torch.tensor([[0, -1, 1]])
    right = torch.zeros(1, 2, 3, 4)
    right[:, :, 0, 1:3] = 0.5
    right[:, :, 2, 3] = 1.0
    no_tags, no_numbers = torch.full_like(cell_objects, -1), objects > 1
    targets = losses.attention_targets(objects, no_numbers, cell_objects, no_tags)
    assert losses.attention_loss([right], targets).item() == pytest.approx(0, abs=1e-3)
    assert losses.attention_loss([right.roll(1, -1)], targets).item() > 0.3
    assert losses.attention_loss([right], torch.zeros_like(targets)).item() == 0


def test_a_number_attends_to_the_tag_and_a_name_to_the_object() -> None:
    cell_objects, tag_objects = torch.tensor([[0, 0, 1, -1]]), torch.tensor([[-1, 1, -1, 0]])
    objects = torch.tensor([[0, 0, -1, 1]])
    is_number = torch.tensor([[False, True, True, True]])
    targets = losses.attention_targets(objects, is_number, cell_objects, tag_objects)
    assert targets[0].int().tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]
    no_tags = torch.full_like(tag_objects, -1)
    untagged = losses.attention_targets(objects, is_number, cell_objects, no_tags)
    assert untagged[0].int().tolist()[1] == [1, 1, 0, 0]
