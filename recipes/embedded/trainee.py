"""The reasoner in training: model, helpers and words together, and the losses of a batch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from recipes.embedded import losses
from recipes.embedded.candidates import MOST_MARKS
from recipes.embedded.examples import Ask, Example
from recipes.embedded.loop import settle
from recipes.embedded.model import (
    IMAGE_TOKENS,
    WIDTH,
    build_model,
    export,
    load_model,
    order_numbers,
)
from recipes.embedded.tokenizer import Told, Words
from rsvp.embedded.vocabulary import categories

NOTHING_WEIGHT = 0.3  # of an empty cell: most cells are


class Helpers(nn.Module):
    """The heads that exist only in training: what lies in each cell of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.sees = nn.Linear(WIDTH, len(things()) + 1)  # the last class: nothing
        self.where = nn.Linear(WIDTH, 4)
        self.knows_where = nn.Linear(WIDTH, 4)
        self.asked = nn.Linear(WIDTH, 2)  # is it a target, does it matter
        self.reads = nn.Linear(WIDTH, 4 * WIDTH)  # the four numbers of its box, as their tokens
        self.tags = nn.Linear(WIDTH, MOST_MARKS + 1)  # the number drawn in the cell, 0 for none
        self.tagged = nn.Linear(WIDTH, 4)  # the box that the number drawn in the cell marks
        self.marked = nn.Linear(WIDTH, WIDTH)  # the number of its mark, as its token


@dataclass(frozen=True, slots=True)
class Truth:
    """What lies in the n cells of a batch that show an object.

    Attributes:
        rows: (n,) the image in the batch; cells: (n,) the cell in the image.
        images, objects: n image numbers, as in `rows`, and the index of the object in its scene.
        names: (n,) vocabulary indices; boxes: (n, 4) xyxy, 0 to 1.
        numbers: (n,) of the objects' marks, 0 for none, -1 where no marks are drawn.
        tags: (B, cells) the number drawn in each cell, 0 for none.
        tag_boxes: (B, cells, 4) what that number marks, xyxy, 0 to 1.
    """

    rows: Tensor
    cells: Tensor
    images: list[int]
    objects: list[int]
    names: Tensor
    boxes: Tensor
    numbers: Tensor
    tags: Tensor
    tag_boxes: Tensor


def find_truth(examples: Sequence[Example], device: str) -> Truth:
    """Collect what the cells of a batch show."""
    owners = torch.from_numpy(np.stack([e.cells for e in examples]))
    rows, cells = (owners >= 0).nonzero(as_tuple=True)
    images, objects = rows.tolist(), owners[rows, cells].tolist()
    pairs = list(zip(images, objects, strict=True))
    names = torch.tensor([int(examples[i].names[o]) for i, o in pairs], device=device)
    boxes = torch.from_numpy(np.stack([examples[i].boxes[o] for i, o in pairs]))
    numbers = torch.tensor([number_of(examples[i], o) for i, o in pairs], device=device)
    tags = torch.from_numpy(np.stack([e.tags for e in examples])).to(device)
    tag_boxes = torch.from_numpy(np.stack([e.tag_boxes for e in examples])).to(device)
    return Truth(
        rows.to(device), cells.to(device), images, objects, names, boxes.to(device), numbers,
        tags, tag_boxes,
    )  # fmt: skip


def number_of(example: Example, index: int) -> int:
    """The number of an object's mark, 0 for none, -1 where no marks are drawn."""
    return -1 if example.numbers is None else int(example.numbers[index])


class Perceived(NamedTuple):
    """What `perceive` found: features for `speak`, the truth, the loss, the shares of the cells
    named right and of the numbers read right."""

    features: Any
    truth: Truth
    loss: Tensor
    accuracy: float
    numbers: float


class Conversed(NamedTuple):
    """The language loss, the encoder's helper losses, and the share of cells rightly taken for
    what was asked for, or not."""

    spoken: Tensor
    understood: Tensor
    picked: float


class Trainee:
    """Model, helpers and words. A subclass may put another architecture in: `build`, `see` and
    `speak` are all that knows of it.

    Args:
        start: folder of a trained model to go on from, with helpers that know nothing yet.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, device: str, start: Path | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.device = device
        self.model: Any = self.build() if start is None else load_model(start, len(tokenizer))
        if start is None:
            order_numbers(self.model, tokenizer)
        settle(self.model, device)
        self.helpers = Helpers().to(device)
        self.words = Words(tokenizer, device)

    def build(self) -> Any:
        """The model, with random weights."""
        image_token: Any = self.tokenizer.convert_tokens_to_ids("<image>")
        return build_model(len(self.tokenizer), image_token)

    def see(self, images: Tensor) -> tuple[Any, Tensor]:
        """What `speak` needs of the vision tower, and its (B, cells, WIDTH) features."""
        tower = self.model.model.vision_tower(images).last_hidden_state
        return self.model.model.multi_modal_projector(tower), tower.flatten(2).transpose(1, 2)

    def speak(
        self,
        features: Any,
        image_rows: Tensor,
        asked: tuple[Tensor, Tensor],
        told: Told,
        owners: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The language loss, and the encoder's (n, cells, WIDTH) states at the image.

        Half of the decoder's later cross-attention heads are shown where to look: at the cells of
        the object that the token speaks of, or of its tag.

        Args:
            features: of the images, from `see`; image_rows: (n,) the image of each question.
            asked: ids and mask of the prompts, each (n, length); told: the replies.
            owners: (n, cells) the object in each cell, and the one whose tag is there; -1 for none.
        """
        table = self.model.get_input_embeddings()
        sequence = torch.cat([features[image_rows], table(asked[0])], 1)
        mask = F.pad(asked[1], (IMAGE_TOKENS, 0), value=1)
        started = F.pad(told.ids[:, :-1], (1, 0), value=2)
        language = self.model.model.language_model
        encoded = language.encoder(inputs_embeds=sequence, attention_mask=mask).last_hidden_state
        decoded = language.decoder(
            input_ids=started, encoder_hidden_states=encoded, encoder_attention_mask=mask,
            use_cache=False, output_attentions=True,
        )  # fmt: skip
        attended = [layer[:, :4, :, 1:IMAGE_TOKENS] for layer in decoded.cross_attentions[1:]]
        match = losses.cells_meant(told.about, told.numbers, *owners)
        looked = losses.look_loss(attended, match)
        spoken = self.token_loss(decoded.last_hidden_state, told)
        return spoken + 0.5 * looked, encoded[:, 1:IMAGE_TOKENS]

    def token_loss(self, states: Tensor, told: Told) -> Tensor:
        """The replies' loss, of the (n, length, WIDTH) states that predict their tokens."""
        keep = told.mask == 1
        logs = self.model.lm_head(states[keep]).float().log_softmax(-1)
        coordinates = told.coordinates[:, None].expand_as(keep)[keep]
        return losses.token_loss(logs, told.ids[keep], coordinates, self.words.numbers)

    def perceive(
        self, examples: Sequence[Example], images: Tensor, *, teach: bool = True
    ) -> Perceived:
        """Look at (B, 3, SIZE, SIZE) images: name and box of the object in each cell, and numbers.

        Args:
            teach: let the model learn from this loss; else only the helpers do.
        """
        features, flat = self.see(images)
        flat = flat if teach else flat.detach()
        truth = find_truth(examples, self.device)
        at = (truth.rows, truth.cells)
        nothing = len(things())
        wanted = torch.full(flat.shape[:2], nothing, device=self.device)
        wanted[at] = truth.names
        weight = torch.ones(nothing + 1, device=self.device)
        weight[nothing] = NOTHING_WEIGHT
        logits = self.helpers.sees(flat).float()
        seen = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight=weight)
        placed = losses.box_loss(self.helpers.where(flat[at]), truth.boxes, truth.cells)
        accuracy = float((logits[at].argmax(-1) == truth.names).float().mean())
        numbered, right = losses.tag_loss(self.helpers.tags(flat).float(), truth.tags)
        tied = self.tie_loss(flat, truth)
        return Perceived(features, truth, seen + placed + numbered + tied, accuracy, right)

    def tie_loss(self, flat: Tensor, truth: Truth) -> Tensor:
        """How badly it is told from the (B, cells, WIDTH) features what each tag belongs to."""
        rows, cells = (truth.tags > 0).nonzero(as_tuple=True)
        if not len(rows):
            return flat.new_zeros(())
        predicted = self.helpers.tagged(flat[rows, cells])
        return losses.box_loss(predicted, truth.tag_boxes[rows, cells], cells)

    def converse(
        self,
        examples: Sequence[Example],
        perceived: Perceived,
        rng: random.Random,
        asks: int,
        *,
        teach: bool = True,
    ) -> Conversed:
        """Put up to `asks` questions an image, drawn by `rng`, and reply to them.

        Args:
            teach: let the model learn from the helpers' losses, too; else only they do.
        """
        chosen = [
            (i, ask)
            for i, e in enumerate(examples)
            for ask in rng.sample(e.asks, min(asks, len(e.asks)))
        ]
        image_rows = torch.tensor([i for i, _ in chosen], device=self.device)
        asked = self.words.prompts([ask.prompt for _, ask in chosen])
        told = self.words.replies([ask for _, ask in chosen])
        shown = [examples[i] for i, _ in chosen]
        owners = (
            torch.from_numpy(np.stack([e.cells for e in shown])).to(self.device),
            torch.from_numpy(np.stack([e.tag_owners for e in shown])).to(self.device),
        )
        spoken, states = self.speak(perceived.features, image_rows, asked, told, owners)
        states = states if teach else states.detach()
        return Conversed(spoken, *self.understand(states, chosen, perceived.truth))

    def understand(
        self, encoded: Tensor, chosen: Sequence[tuple[int, Ask]], truth: Truth
    ) -> tuple[Tensor, float]:
        """What the states at the image know: name by its token, box, and what was asked for.

        Args:
            encoded: (n, cells, WIDTH) states; chosen: n images and the questions about them.
        """
        pairs = [
            (q, k)
            for q, (image, _) in enumerate(chosen)
            for k, shown in enumerate(truth.images)
            if shown == image
        ]
        question, spot = torch.tensor(pairs, device=self.device).unbind(1)
        state = encoded[question, truth.cells[spot]]
        boxes = truth.boxes[spot]
        named = state @ self.model.get_input_embeddings().weight[self.words.names].T
        name = F.cross_entropy(named.float(), truth.names[spot])
        placed = losses.box_loss(self.helpers.knows_where(state), boxes, truth.cells[spot])
        asked = self.helpers.asked(state).float()
        goal = torch.tensor(goals(pairs, chosen, truth), device=self.device)
        sought = F.binary_cross_entropy_with_logits(asked, goal)
        picked = ((asked[:, 0] > 0) == (goal[:, 0] > 0)).float().mean().item()
        read = losses.read_loss(self.read(state), boxes)
        marked = self.mark_loss(state, truth.numbers[spot])
        return 0.3 * name + 0.3 * placed + 2 * sought + read + marked, picked

    def mark_loss(self, state: Tensor, numbers: Tensor) -> Tensor:
        """How badly the (n,) marks' numbers can be told from (n, WIDTH) states; -1 is no matter."""
        shown = numbers >= 0
        if not shown.any():
            return state.new_zeros(())
        tokens = self.words.numbers[1, : MOST_MARKS + 1]
        table = self.model.get_input_embeddings().weight[tokens]
        logits = (self.helpers.marked(state[shown]) @ table.T).float()
        return F.cross_entropy(logits, numbers[shown])

    def read(self, state: Tensor) -> Tensor:
        """(n, 4, 101) log-probabilities of a box's numbers, from (n, WIDTH) states."""
        table = self.model.get_input_embeddings().weight
        sides = self.helpers.reads(state).view(-1, 4, WIDTH)
        comma, bracket = (table[ids] for ids in self.words.numbers)
        ends = (comma, comma, comma, bracket)
        logits = [sides[:, k] @ end.T for k, end in enumerate(ends)]
        return torch.stack(logits, 1).float().log_softmax(-1)

    def export(self, folder: Path) -> None:
        """Write the folder that `from_pretrained` reads."""
        export(self.model, self.tokenizer, folder)


def goals(
    pairs: Sequence[tuple[int, int]], chosen: Sequence[tuple[int, Ask]], truth: Truth
) -> list[tuple[float, float]]:
    """For each question and cell: is its object a target, does it matter."""
    found = []
    for q, k in pairs:
        ask, shown = chosen[q][1], truth.objects[k]
        found.append((float(shown in ask.targets), float(shown in ask.matters)))
    return found
