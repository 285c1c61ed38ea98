"""The reasoner in training: the model, its auxiliary heads, and the losses of a batch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from recipes.embedded import losses
from recipes.embedded.examples import Example, Turn
from recipes.embedded.looking import DETAIL_CLASSES
from recipes.embedded.loop import prepare
from recipes.embedded.marks import MOST_MARKS
from recipes.embedded.meaning import Text, meaning_loss, text_states
from recipes.embedded.model import (
    IMAGE_TOKENS,
    WIDTH,
    build_model,
    export,
    load_model,
    order_numbers,
)
from recipes.embedded.tokenizer import ReplyTokens, TurnEncoder, unwritten_ids, word_rows
from recipes.embedded.words import Vectors, initial_embeddings
from rsvp.embedded.vocabulary import categories

EMPTY_WEIGHT = 0.3  # of a cell without an object: most cells are
ATTENTION_HEADS = 4  # of 8, whose cross-attention is supervised


class AuxiliaryHeads(nn.Module):
    """Linear heads on the features of a cell of the image; they exist only in training."""

    def __init__(self) -> None:
        super().__init__()
        # On the vision tower: the category in the cell (the last class: none), and its box.
        self.category = nn.Linear(WIDTH, len(categories()) + 1)
        self.box = nn.Linear(WIDTH, 4)
        # On the encoder: its box, whether it is a target and whether it matters, and the four
        # numbers of its box as embeddings of their tokens.
        self.encoder_box = nn.Linear(WIDTH, 4)
        self.relevance = nn.Linear(WIDTH, 2)
        self.box_numbers = nn.Linear(WIDTH, 4 * WIDTH)
        # On the vision tower: the number drawn in the cell (0 for none), and the box that it marks.
        self.tag_number = nn.Linear(WIDTH, MOST_MARKS + 1)
        self.tag_box = nn.Linear(WIDTH, 4)
        # The detail in the cell (0 for none).
        self.detail = nn.Linear(WIDTH, len(DETAIL_CLASSES) + 1)
        # On the encoder: the number of the object's mark, as the embedding of its token.
        self.mark_number = nn.Linear(WIDTH, WIDTH)


@dataclass(frozen=True, slots=True)
class CellTargets:
    """What lies in the n cells of a batch that show an object, and the tags in all cells.

    Attributes:
        rows, cells: (n,) the image in the batch, and the cell in the image.
        images, objects: n image numbers, as in `rows`, and the index of the object in its scene.
        categories: (n,) vocabulary indices; boxes: (n, 4) xyxy, 0 to 1.
        mark_numbers: (n,) of the objects' marks, 0 for none, -1 where no marks are drawn.
        tag_numbers: (B, cells) the number drawn in each cell, 0 for none.
        tag_boxes: (B, cells, 4) what that number marks, xyxy, 0 to 1.
        details: (B, cells) the class of the detail in each cell, 0 for none.
    """

    rows: Tensor
    cells: Tensor
    images: list[int]
    objects: list[int]
    categories: Tensor
    boxes: Tensor
    mark_numbers: Tensor
    tag_numbers: Tensor
    tag_boxes: Tensor
    details: Tensor


def cell_targets(examples: Sequence[Example], device: str) -> CellTargets:
    owners = torch.from_numpy(np.stack([e.cell_objects for e in examples]))
    rows, cells = (owners >= 0).nonzero(as_tuple=True)
    images, objects = rows.tolist(), owners[rows, cells].tolist()
    pairs = list(zip((examples[i] for i in images), objects, strict=True))
    marks = [-1 if e.mark_numbers is None else int(e.mark_numbers[o]) for e, o in pairs]
    return CellTargets(
        rows.to(device),
        cells.to(device),
        images,
        objects,
        torch.tensor([int(e.categories[o]) for e, o in pairs], device=device),
        torch.from_numpy(np.stack([e.boxes[o] for e, o in pairs])).to(device),
        torch.tensor(marks, device=device),
        stack([e.tag_numbers for e in examples], device),
        stack([e.tag_boxes for e in examples], device),
        stack([e.details for e in examples], device),
    )


def stack(arrays: Sequence[NDArray[Any]], device: str) -> Tensor:
    """Arrays of one shape as a tensor."""
    return torch.from_numpy(np.stack(arrays)).to(device)


class Perception(NamedTuple):
    """Image features for `language_loss`, the targets and the loss of the vision tower's heads, and
    the shares of the cells whose category, of the tags whose number, and of the details that are
    read right."""

    features: Any
    targets: CellTargets
    loss: Tensor
    accuracy: float
    numbers_read: float
    details_read: float


class TurnLosses(NamedTuple):
    """The language loss, the loss of the encoder's heads, and the share of the cells rightly
    classified as target or not."""

    language: Tensor
    encoder: Tensor
    target_accuracy: float


class ReasonerTrainer:
    """The model, its auxiliary heads and its tokenizer, and the losses of a batch.

    A subclass may train another architecture: `build`, `encode_images` and `language_loss` are all
    that depends on it.

    Args:
        start: folder of a trained model to fine-tune, with new heads.

    Attributes:
        known: tokens of the trained model; those that follow are new.
        unwritten: the tokens that no reply holds: the words and pieces of questions.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, device: str, start: Path | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.device = device
        self.model: Any
        if start is None:
            self.model, self.known = self.build(), len(tokenizer)
        else:
            self.model, self.known = load_model(start, len(tokenizer))
        if start is None:
            order_numbers(self.model, tokenizer)
        prepare(self.model, device)
        self.unwritten = unwritten_ids(tokenizer)
        written = [row for row in range(len(tokenizer)) if row not in self.unwritten]
        self._written = torch.tensor(written, device=device)
        self._place = torch.zeros(len(tokenizer), dtype=torch.long, device=device)
        self._place[self._written] = torch.arange(len(written), device=device)
        self.heads = AuxiliaryHeads().to(device)
        self.turns = TurnEncoder(tokenizer, device)

    def build(self) -> Any:
        image_token: Any = self.tokenizer.convert_tokens_to_ids("<image>")
        return build_model(len(self.tokenizer), image_token)

    def encode_images(self, images: Tensor) -> tuple[Any, Tensor]:
        """What `language_loss` needs of the images, and their (B, cells, WIDTH) features."""
        tower = self.model.model.vision_tower(images).last_hidden_state
        return self.model.model.multi_modal_projector(tower), tower.flatten(2).transpose(1, 2)

    def language_loss(
        self,
        features: Any,
        image_rows: Tensor,
        prompts: tuple[Tensor, Tensor],
        replies: ReplyTokens,
        attention_targets: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The language loss, and the encoder's (n, cells, WIDTH) states at the image.

        Half of the heads of the decoder's later cross-attention are supervised: they attend to the
        cells of the object that the token speaks of, or of its tag.

        Args:
            features: of the images, from `encode_images`; image_rows: (n,) the image of each turn.
            prompts: ids and attention mask, each (n, length).
            attention_targets: (n, length, cells) bool, see `losses.attention_targets`.
        """
        table = self.model.get_input_embeddings()
        sequence = torch.cat([features[image_rows], table(prompts[0])], 1)
        mask = F.pad(prompts[1], (IMAGE_TOKENS, 0), value=1)
        inputs = F.pad(replies.ids[:, :-1], (1, 0), value=2)
        language = self.model.model.language_model
        encoded = language.encoder(inputs_embeds=sequence, attention_mask=mask).last_hidden_state
        decoded = language.decoder(
            input_ids=inputs, encoder_hidden_states=encoded, encoder_attention_mask=mask,
            use_cache=False, output_attentions=True,
        )  # fmt: skip
        attentions = [
            layer[:, :ATTENTION_HEADS, :, 1:IMAGE_TOKENS] for layer in decoded.cross_attentions[1:]
        ]
        attention = losses.attention_loss(attentions, attention_targets)
        tokens = self.token_loss(decoded.last_hidden_state, replies)
        return tokens + 0.5 * attention, encoded[:, 1:IMAGE_TOKENS]

    def token_loss(self, states: Tensor, replies: ReplyTokens) -> Tensor:
        """The replies' loss, of the (n, length, WIDTH) states that predict their tokens."""
        keep = replies.mask == 1
        weight = self.model.lm_head.weight[self._written]
        logs = F.linear(states[keep], weight).float().log_softmax(-1)
        coordinates = replies.coordinates[:, None].expand_as(keep)[keep]
        labels, numbers = self._place[replies.ids[keep]], self._place[self.turns.number_ids]
        return losses.token_loss(logs, labels, coordinates, numbers)

    @torch.no_grad()
    def embed_words(self, words: Sequence[str], vectors: Vectors) -> None:
        """Give the words that the trained model did not have embeddings near those of names."""
        table = self.model.get_input_embeddings().weight
        with torch.enable_grad():
            made = initial_embeddings(words, vectors, table[self.turns.name_ids].cpu().float())
        rows = word_rows(self.tokenizer)
        for word, row in zip(words, made.detach(), strict=True):
            if rows.get(word, -1) >= self.known:
                table[rows[word]] = row.to(table)

    def text_loss(self, texts: Sequence[Text]) -> Tensor:
        """The loss of naming what texts mean, without an image."""
        prompts = self.turns.prompts([text.prompt for text in texts])
        states = text_states(self.model, prompts)
        logits = states @ self.model.get_input_embeddings().weight[self.turns.name_ids].T
        return meaning_loss(logits.float(), [text.categories for text in texts])

    def perception_loss(
        self, examples: Sequence[Example], images: Tensor, *, train_model: bool = True
    ) -> Perception:
        """The loss of the heads on the vision tower: category, box and tag of every cell.

        Args:
            images: (B, 3, SIZE, SIZE).
            train_model: let gradients of this loss reach the model, else the heads alone.
        """
        features, flat = self.encode_images(images)
        flat = flat if train_model else flat.detach()
        targets = cell_targets(examples, self.device)
        at = (targets.rows, targets.cells)
        empty = len(categories())
        wanted = torch.full(flat.shape[:2], empty, device=self.device)
        wanted[at] = targets.categories
        weight = torch.ones(empty + 1, device=self.device)
        weight[empty] = EMPTY_WEIGHT
        logits = self.heads.category(flat).float()
        category = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight=weight)
        box = losses.box_loss(self.heads.box(flat[at]), targets.boxes, targets.cells)
        accuracy = float((logits[at].argmax(-1) == targets.categories).float().mean())
        tag, read = losses.reading_loss(self.heads.tag_number(flat).float(), targets.tag_numbers)
        detail, details = losses.reading_loss(self.heads.detail(flat).float(), targets.details)
        loss = category + box + tag + detail + self._tag_box_loss(flat, targets)
        return Perception(features, targets, loss, accuracy, read, details)

    def _tag_box_loss(self, flat: Tensor, targets: CellTargets) -> Tensor:
        """The loss of the box that each tag marks, from (B, cells, WIDTH) features."""
        rows, cells = (targets.tag_numbers > 0).nonzero(as_tuple=True)
        if not len(rows):
            return flat.new_zeros(())
        predicted = self.heads.tag_box(flat[rows, cells])
        return losses.box_loss(predicted, targets.tag_boxes[rows, cells], cells)

    def turn_losses(
        self,
        examples: Sequence[Example],
        perception: Perception,
        rng: random.Random,
        most: int,
        *,
        train_model: bool = True,
    ) -> TurnLosses:
        """The losses of up to `most` turns an image, drawn by `rng`.

        Args:
            train_model: let gradients of the heads' loss reach the model, else the heads alone.
        """
        chosen = [
            (i, turn)
            for i, example in enumerate(examples)
            for turn in rng.sample(example.turns, min(most, len(example.turns)))
        ]
        image_rows = torch.tensor([i for i, _ in chosen], device=self.device)
        prompts = self.turns.prompts([turn.prompt for _, turn in chosen])
        replies = self.turns.replies([turn for _, turn in chosen])
        attention_targets = losses.attention_targets(
            replies.objects,
            replies.is_read,
            stack([examples[i].cell_objects for i, _ in chosen], self.device),
            stack([examples[i].read_objects for i, _ in chosen], self.device),
        )
        language, states = self.language_loss(
            perception.features, image_rows, prompts, replies, attention_targets
        )
        states = states if train_model else states.detach()
        return TurnLosses(language, *self.encoder_loss(states, chosen, perception.targets))

    def encoder_loss(
        self, encoded: Tensor, chosen: Sequence[tuple[int, Turn]], targets: CellTargets
    ) -> tuple[Tensor, float]:
        """The loss of the heads on the encoder, and how many cells it classifies right.

        Each cell predicts the name of its object as a token, its box, its relevance for the query,
        the numbers of its box and the number of its mark.

        Args:
            encoded: (n, cells, WIDTH) states at the image; chosen: n images and turns.
        """
        pairs = [
            (t, k)
            for t, (image, _) in enumerate(chosen)
            for k, other in enumerate(targets.images)
            if other == image
        ]
        rows, spots = torch.tensor(pairs, device=self.device).unbind(1)
        cells, boxes = targets.cells[spots], targets.boxes[spots]
        state = encoded[rows, cells]
        table = self.model.get_input_embeddings().weight
        names = state @ table[self.turns.name_ids].T
        name = F.cross_entropy(names.float(), targets.categories[spots])
        box = losses.box_loss(self.heads.encoder_box(state), boxes, cells)
        logits = self.heads.relevance(state).float()
        wanted = torch.tensor(relevance(pairs, chosen, targets), device=self.device)
        relevant = F.binary_cross_entropy_with_logits(logits, wanted)
        accuracy = ((logits[:, 0] > 0) == (wanted[:, 0] > 0)).float().mean().item()
        numbers = losses.box_number_loss(self._box_numbers(state), boxes)
        mark = self._mark_loss(state, targets.mark_numbers[spots])
        return 0.3 * name + 0.3 * box + 2 * relevant + numbers + mark, accuracy

    def _mark_loss(self, state: Tensor, numbers: Tensor) -> Tensor:
        """Cross-entropy of the (n,) numbers of marks, from (n, WIDTH) states; -1 is ignored."""
        shown = numbers >= 0
        if not shown.any():
            return state.new_zeros(())
        tokens = self.turns.number_ids[1, : MOST_MARKS + 1]
        table = self.model.get_input_embeddings().weight[tokens]
        logits = (self.heads.mark_number(state[shown]) @ table.T).float()
        return F.cross_entropy(logits, numbers[shown])

    def _box_numbers(self, state: Tensor) -> Tensor:
        """(n, 4, 101) log-probabilities of a box's numbers, from (n, WIDTH) states."""
        table = self.model.get_input_embeddings().weight
        sides = self.heads.box_numbers(state).view(-1, 4, WIDTH)
        comma, bracket = (table[ids] for ids in self.turns.number_ids)
        ends = (comma, comma, comma, bracket)
        logits = [sides[:, k] @ end.T for k, end in enumerate(ends)]
        return torch.stack(logits, 1).float().log_softmax(-1)

    def export(self, folder: Path) -> None:
        """Write the folder that `from_pretrained` reads."""
        export(self.model, self.tokenizer, folder, unwritten=self.unwritten)


def relevance(
    pairs: Sequence[tuple[int, int]], chosen: Sequence[tuple[int, Turn]], targets: CellTargets
) -> list[tuple[float, float]]:
    """For each turn and cell: is its object a target, and does it matter for the answer."""
    found = []
    for t, k in pairs:
        turn, shown = chosen[t][1], targets.objects[k]
        found.append((float(shown in turn.targets), float(shown in turn.reasoning)))
    return found
