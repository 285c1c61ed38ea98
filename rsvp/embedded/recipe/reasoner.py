"""Train the embedded reasoner: perception first, then language, on scenes rendered as it goes.

The model is transformers' Florence2ForConditionalGeneration with a small configuration: the image
and the question meet in a bidirectional encoder. From scratch, language loss alone learns next to
nothing in hours, so two dense helpers, dropped after training, tell every cell of the image what
lies there: name and box on the vision tower's features, and on the encoder's states also whether
it is what the question asks for. DESIGN section 5 has the pilot's figures.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GenerationConfig,
    MBartConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.florence2.configuration_florence2 import Florence2VisionConfig

from rsvp.drawing import grid_prompt
from rsvp.embedded import scenes
from rsvp.embedded.queries import Query
from rsvp.embedded.recipe.loop import (
    Clock,
    Log,
    load_checkpoint,
    optimizers,
    save_checkpoint,
    schedule,
    set_rate,
    warm,
)
from rsvp.embedded.recipe.tokenizer import build_tokenizer
from rsvp.embedded.replies import GRID, pieces
from rsvp.embedded.world import things
from rsvp.prompting import render

SIZE = 240  # what the reasoner sees, pixels
CELLS = 10  # a side, of the grid of image tokens
WIDTH = 256
IMAGE_TOKENS = 1 + CELLS * CELLS
TRAIN_SEED = 1_000_003  # far from the seeds that people type


def build_model(vocabulary: int, image_token: int) -> Florence2ForConditionalGeneration:
    """The architecture, with random weights."""
    vision = Florence2VisionConfig(
        depths=[1, 1, 3], patch_size=[8, 3, 3], patch_stride=[6, 2, 2], patch_padding=[1, 1, 1],
        patch_prenorm=[False, True, True], embed_dim=[64, 128, 256], num_heads=[2, 4, 8],
        num_groups=[2, 4, 8], window_size=10, drop_path_rate=0.0, projection_dim=WIDTH,
        max_position_embeddings=CELLS, max_temporal_embeddings=1,
    )  # fmt: skip
    text = MBartConfig(
        vocab_size=vocabulary, d_model=WIDTH, encoder_layers=3, decoder_layers=3,
        encoder_attention_heads=8, decoder_attention_heads=8, encoder_ffn_dim=768,
        decoder_ffn_dim=768, max_position_embeddings=256, dropout=0.0, attention_dropout=0.0,
        activation_dropout=0.0, scale_embedding=False, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    config = Florence2Config(
        vision_config=vision, text_config=text, image_token_id=image_token,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    model = Florence2ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, num_beams=1,
        do_sample=False,
    )  # fmt: skip
    return model


@torch.no_grad()
def order_numbers(
    model: Florence2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Give neighbouring numbers neighbouring embeddings: sines of the value, fixed directions."""
    table = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    waves = torch.tensor([0.5, 1, 2, 4, 8, 16])
    value = torch.arange(101)[:, None] / 100
    features = torch.cat([torch.sin(np.pi * value * waves), torch.cos(np.pi * value * waves)], 1)
    for end in (",", "]"):
        directions = torch.randn(features.shape[1], table.shape[1], generator=generator)
        ids = [tokenizer.convert_tokens_to_ids(f"{n}{end}") for n in range(101)]
        table[ids] += 0.02 * features @ directions


class Helpers(nn.Module):
    """The heads that exist only in training: what lies in each cell of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.sees = nn.Linear(WIDTH, len(things()) + 1)  # the last class: nothing
        self.where = nn.Linear(WIDTH, 4)
        self.knows_where = nn.Linear(WIDTH, 4)
        self.asked = nn.Linear(WIDTH, 2)  # is it a target, does it matter
        self.reads = nn.Linear(WIDTH, 4 * WIDTH)  # the four numbers of its box, as their tokens


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt and its true reply.

    Attributes:
        told: the reply in pieces, each with the object that it speaks of (see `replies.pieces`).
        targets, matters: object indices.
        boxes: the reply's numbers are coordinates (of which a neighbour is nearly right).
    """

    prompt: str
    told: list[tuple[str, int | None]]
    targets: tuple[int, ...]
    matters: tuple[int, ...]
    boxes: bool


@dataclass(frozen=True, slots=True)
class Example:
    """A scene as training sees it.

    Attributes:
        rgb: (SIZE, SIZE, 3) uint8, with the numbered bands drawn for the grid strategy.
        cells: (CELLS * CELLS,) index of the object in each cell, -1 for none.
        names: (n,) vocabulary index of each object.
        boxes: (n, 4) xyxy, 0 to 1.
        asks: the questions about it.
    """

    rgb: NDArray[np.uint8]
    cells: NDArray[np.int64]
    names: NDArray[np.int64]
    boxes: NDArray[np.float32]
    asks: list[Ask]


def cell_owners(objects: Sequence[scenes.SceneObject], size: int) -> NDArray[np.int64]:
    """Which object each cell shows at its centre; every object has at least one cell."""
    owners = np.full((CELLS, CELLS), -1, dtype=np.int64)
    spots = ((np.arange(CELLS) + 0.5) * size / CELLS).astype(int)
    for i, o in enumerate(objects):
        owners[o.mask[np.ix_(spots, spots)]] = i
    for i, o in enumerate(objects):
        if not (owners == i).any():
            ys, xs = np.nonzero(o.mask)
            cy, cx = int(ys.mean() * CELLS / size), int(xs.mean() * CELLS / size)
            owners[cy, cx] = i
    return owners.reshape(-1)


def to_example(scene: scenes.Scene, rng: np.random.Generator) -> Example:
    """Draw the visual prompt now and then, word the prompts and the true replies."""
    size = scene.rgb.shape[0]
    strategy = "grid" if rng.random() < 0.35 else "boxes"
    rgb = grid_prompt(scene.rgb, GRID) if strategy == "grid" else scene.rgb
    if size != SIZE:
        rgb = np.asarray(Image.fromarray(rgb).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    asks = []
    for query in scene.queries:
        if query.unseen:
            continue
        cot = bool(rng.random() < 0.65)
        told = pieces(query, scene.objects, (size, size), strategy, cot=cot)
        prompt = prompt_text(query, strategy, cot=cot)
        asks.append(Ask(prompt, told, query.targets, query.reasoning, strategy == "boxes"))
    return Example(
        rgb,
        cell_owners(scene.objects, size),
        np.array([o.thing.index for o in scene.objects]),
        np.array([o.box for o in scene.objects], dtype=np.float32) / size,
        asks,
    )


def prompt_text(query: Query, strategy: str, *, cot: bool) -> str:
    """What the pipeline will send: the compact profile's own prompt."""
    return render(f"compact/{strategy}.{'cot' if cot else 'direct'}", query=query.text)


class Pool:
    """Scenes kept for several uses: each draw replaces some of them by fresh ones."""

    def __init__(
        self,
        seed: int,
        capacity: int,
        fresh: float,
        photos: Sequence[NDArray[np.uint8]],
        queries: int,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.capacity, self.fresh = capacity, fresh
        self.photos, self.queries = photos, queries
        self.scenes: list[Example] = []

    def render(self) -> Example:
        while True:
            size = SIZE if self.rng.random() < 0.6 else int(self.rng.integers(260, 360))
            scene = scenes.render(self.rng, size=size, count=self.queries, photos=self.photos)
            example = to_example(scene, self.rng)
            if example.asks:
                return example

    def draw(self, n: int) -> list[Example]:
        batch = []
        for _ in range(n):
            full = len(self.scenes) >= self.capacity
            if not full or self.rng.random() < self.fresh:
                example = self.render()
                if full:
                    self.scenes[int(self.rng.integers(self.capacity))] = example
                else:
                    self.scenes.append(example)
            else:
                example = self.scenes[int(self.rng.integers(len(self.scenes)))]
            batch.append(example)
        return batch


def pixels(examples: Sequence[Example], rng: np.random.Generator | None) -> Tensor:
    """(B, 3, SIZE, SIZE) float, normalised; with `rng`, brightness and contrast vary."""
    rgb = torch.from_numpy(np.stack([e.rgb for e in examples])).permute(0, 3, 1, 2).float()
    values = rgb / 127.5 - 1
    if rng is not None:
        shape = (len(examples), 1, 1, 1)
        gain = torch.from_numpy(rng.uniform(0.85, 1.15, shape)).float()
        values = values * gain + torch.from_numpy(rng.uniform(-0.1, 0.1, shape)).float()
    return values


def box_loss(predicted: Tensor, true: Tensor, cell: Tensor) -> Tensor:
    """L1 + (1 - IoU) of boxes told as offsets from the centre of their cell.

    Args:
        predicted: (n, 4) offsets; true: (n, 4) xyxy, 0 to 1; cell: (n,) cell numbers.
    """
    center = torch.stack([cell % CELLS, cell // CELLS], 1).float().add(0.5).div(CELLS)
    box = predicted.float() * 0.2 + center.repeat(1, 2)
    low, high = torch.maximum(box[:, :2], true[:, :2]), torch.minimum(box[:, 2:], true[:, 2:])
    overlap = (high - low).clamp(min=0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).clamp(min=0).prod(1) for b in (box, true)]
    iou = overlap / (areas[0] + areas[1] - overlap + 1e-6)
    return (box - true).abs().sum(1).mean() * 3 + (1 - iou).mean()


class Told(NamedTuple):
    """Replies as tokens, all (n, length) but the last.

    Attributes:
        ids, mask: padded on the right.
        about: the object that each token speaks of, -1 for none.
        coordinates: (n,) bool, the reply's numbers are coordinates.
    """

    ids: Tensor
    mask: Tensor
    about: Tensor
    coordinates: Tensor


def look_loss(attended: Sequence[Tensor], about: Tensor, owners: Tensor) -> Tensor:
    """-log of the attention that falls on the right cells.

    Args:
        attended: per layer (n, heads, length, cells) attention; about: (n, length) objects;
        owners: (n, cells) objects.
    """
    match = (about[:, :, None] == owners[:, None, :]) & (about >= 0)[:, :, None]
    seen = match.any(-1)
    losses = []
    for layer in attended:
        mass = (layer.float() * match[:, None]).sum(-1).transpose(1, 2)[seen]
        losses.append(-(mass + 1e-4).log().mean())
    return torch.stack(losses).mean()


class Trainee:
    """Model, helpers and tokenizer together, and the losses of a batch."""

    accuracy = 0.0  # of the last batch: cells named right
    picked = 0.0  # of the last batch: cells rightly taken for what was asked for, or not

    def __init__(self, tokenizer: PreTrainedTokenizerFast, device: str) -> None:
        self.tokenizer = tokenizer
        self.device = device
        self.model = self.build()
        order_numbers(self.model, tokenizer)
        self.model.to(device)
        if device == "cpu":  # its fused kernel's backward is several times slower than plain bmm
            self.model.set_attn_implementation("eager")
        self.helpers = Helpers().to(device)
        names = [tokenizer.convert_tokens_to_ids(t.name) for t in things()]
        self.name_ids = torch.tensor(names, device=device)
        numbers = [tokenizer.convert_tokens_to_ids(f"{n}{end}") for end in ",]" for n in range(101)]
        self.number_ids = torch.tensor(numbers, device=device).view(2, 101)
        self.piece_ids: dict[str, list[int]] = {}

    def build(self) -> Any:
        """The model, with random weights."""
        return build_model(len(self.tokenizer), self.tokenizer.convert_tokens_to_ids("<image>"))

    def see(self, images: Tensor) -> tuple[Any, Tensor]:
        """What `converse` needs of the vision tower, and its (B, cells, WIDTH) features."""
        tower = self.model.model.vision_tower(images).last_hidden_state
        return self.model.model.multi_modal_projector(tower), tower.flatten(2).transpose(1, 2)

    def perceive(self, examples: Sequence[Example], images: Tensor) -> tuple[Any, Tensor, Any]:
        """Vision features, the perception loss, and the cells' truth (rows, cells, objects)."""
        features, flat = self.see(images)
        owners = torch.from_numpy(np.stack([e.cells for e in examples])).to(self.device)
        rows, cells = (owners >= 0).nonzero(as_tuple=True)
        which = owners[rows, cells].tolist()
        pairs = list(zip(rows.tolist(), which, strict=True))
        names = torch.tensor([int(examples[r].names[o]) for r, o in pairs], device=self.device)
        boxes = torch.from_numpy(np.stack([examples[r].boxes[o] for r, o in pairs])).to(self.device)
        wanted = torch.full(owners.shape, len(things()), device=self.device)
        wanted[rows, cells] = names
        logits = self.helpers.sees(flat).float()
        weight = torch.ones(len(things()) + 1, device=self.device)
        weight[-1] = 0.3
        seen = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight=weight)
        placed = box_loss(self.helpers.where(flat[rows, cells]), boxes, cells)
        self.accuracy = float((logits[rows, cells].argmax(-1) == names).float().mean())
        return features, seen + placed, (rows, cells, which, names, boxes)

    def converse(
        self, examples: Sequence[Example], features: Any, truth: Any, rng: random.Random, asks: int
    ) -> tuple[Tensor, Tensor]:
        """The language loss and the encoder's helper losses over `asks` questions an image."""
        chosen = [
            (i, ask)
            for i, e in enumerate(examples)
            for ask in rng.sample(e.asks, min(asks, len(e.asks)))
        ]
        image_rows = torch.tensor([i for i, _ in chosen], device=self.device)
        asked = self.tokens([f"<s>{ask.prompt}</s>" for _, ask in chosen])
        told = self.told([ask for _, ask in chosen])
        owners = torch.from_numpy(np.stack([examples[i].cells for i, _ in chosen]))
        spoken, states = self.speak(features, image_rows, asked, told, owners.to(self.device))
        return spoken, self.understand(states, chosen, truth)

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, each (n, length), padded on the right."""
        made = self.tokenizer(
            list(texts), padding=True, return_tensors="pt", add_special_tokens=False
        )
        return made.input_ids.to(self.device), made.attention_mask.to(self.device)

    def told(self, asks: Sequence[Ask]) -> Told:
        """The replies as tokens."""
        rows, subjects = [], []
        for ask in asks:
            ids: list[int] = []
            about: list[int] = []
            for text, subject in ask.told:
                if text not in self.piece_ids:
                    self.piece_ids[text] = self.tokenizer(text, add_special_tokens=False).input_ids
                ids += self.piece_ids[text]
                about += [-1 if subject is None else subject] * len(self.piece_ids[text])
            rows.append([*ids, self.tokenizer.eos_token_id])
            subjects.append([*about, -1])
        length = max(map(len, rows))
        mask = [[1] * len(r) + [0] * (length - len(r)) for r in rows]
        pads = [r + [0] * (length - len(r)) for r in rows]
        about_pads = [r + [-1] * (length - len(r)) for r in subjects]
        coordinates = [ask.boxes for ask in asks]
        return Told(
            *(torch.tensor(x, device=self.device) for x in (pads, mask, about_pads, coordinates))
        )

    def speak(
        self,
        features: Any,
        image_rows: Tensor,
        asked: tuple[Tensor, Tensor],
        told: Told,
        owners: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The language loss, and the encoder's (n, cells, WIDTH) states at the image.

        Half of the decoder's later cross-attention heads are shown where to look: at the cells of
        the object that the token speaks of.
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
        looked = look_loss(attended, told.about, owners)
        return self.token_loss(decoded.last_hidden_state, told) + 0.5 * looked, encoded[
            :, 1:IMAGE_TOKENS
        ]

    def token_loss(self, states: Tensor, told: Told) -> Tensor:
        """Cross-entropy of the reply; a coordinate's neighbours count as nearly right."""
        keep = told.mask == 1
        labels = told.ids[keep]
        logs = self.model.lm_head(states[keep]).float().log_softmax(-1)
        losses = -logs.gather(1, labels[:, None])[:, 0]
        is_number = (labels[:, None, None] == self.number_ids).flatten(1)
        soft = is_number.any(1) & told.coordinates[:, None].expand_as(keep)[keep]
        if soft.any():
            end, value = (
                (is_number[soft].int().argmax(1) // 101),
                is_number[soft].int().argmax(1) % 101,
            )
            losses = losses.masked_scatter(soft, self.near(logs[soft], end, value))
        return losses.mean()

    def near(self, logs: Tensor, end: Tensor, value: Tensor) -> Tensor:
        """(n,) cross-entropy with a narrow bell of numbers around `value`.

        Args:
            logs: (n, vocabulary) log-probabilities; end: (n,) 0 for a comma, 1 for a bracket.
        """
        step = torch.arange(-2, 3, device=logs.device)
        bell = torch.exp(-0.5 * step.float() ** 2)
        ids = self.number_ids[end[:, None], (value[:, None] + step).clamp(0, 100)]
        return -(logs.gather(1, ids) * (bell / bell.sum())).sum(1)

    def understand(self, encoded: Tensor, chosen: Any, truth: Any) -> Tensor:
        """The encoder's states at the image: name by its token, box, and what was asked for."""
        rows, cells, which, names, boxes = truth
        states, ids, places, goals, spots = [], [], [], [], []
        by_row: dict[int, list[int]] = {}
        for k, r in enumerate(rows.tolist()):
            by_row.setdefault(r, []).append(k)
        for q, (i, ask) in enumerate(chosen):
            mine = by_row.get(i, [])
            index = torch.tensor(mine, device=self.device, dtype=torch.long)
            states.append(encoded[q, cells[index]])
            ids.append(names[index])
            places.append(boxes[index])
            spots.append(cells[index])
            goals += [
                (float(which[k] in ask.targets), float(which[k] in ask.matters)) for k in mine
            ]
        state = torch.cat(states)
        named = state @ self.model.get_input_embeddings().weight[self.name_ids].T
        asked = self.helpers.asked(state).float()
        goal = torch.tensor(goals, device=self.device)
        placed = box_loss(self.helpers.knows_where(state), torch.cat(places), torch.cat(spots))
        self.picked = ((asked[:, 0] > 0) == (goal[:, 0] > 0)).float().mean().item()
        picked = F.binary_cross_entropy_with_logits(asked, goal)
        read = self.read_loss(state, torch.cat(places))
        return (
            0.3 * F.cross_entropy(named.float(), torch.cat(ids)) + 0.3 * placed + 2 * picked + read
        )

    def read_loss(self, state: Tensor, boxes: Tensor) -> Tensor:
        """How badly the four numbers of (n, 4) boxes can be read off (n, WIDTH) states."""
        table = self.model.get_input_embeddings().weight
        numbers = self.helpers.reads(state).view(-1, 4, WIDTH)
        value = (boxes * 100).round().long()
        losses = []
        for k in range(4):
            logs = torch.full((len(state), len(table)), -1e4, device=state.device)
            end = torch.full_like(value[:, k], int(k == 3))
            ids = self.number_ids[int(k == 3)]
            logs[:, ids] = (numbers[:, k] @ table[ids].T).float().log_softmax(-1)
            losses.append(self.near(logs, end, value[:, k]).mean())
        return torch.stack(losses).mean()

    def export(self, folder: Path) -> None:
        """Write the folder that `from_pretrained` reads: bf16 safetensors, processor, tokenizer."""
        kept = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="15MB")
        self.model.float().load_state_dict(kept)
        image_processor = CLIPImageProcessorPil(
            do_resize=True, size={"height": SIZE, "width": SIZE},
            resample=Image.Resampling.BILINEAR, do_center_crop=False,
            image_mean=[0.5] * 3, image_std=[0.5] * 3,
        )  # fmt: skip
        image_processor.image_seq_length = IMAGE_TOKENS
        Florence2Processor(image_processor, self.tokenizer).save_pretrained(folder)


def make_tokenizer(folder: Path, n: int = 4000) -> PreTrainedTokenizerFast:
    """The tokenizer in `folder`, trained now on the questions of n scenes if it isn't there."""
    if not (folder / "tokenizer.json").exists():
        made = scenes.scenes(n, TRAIN_SEED, size=96, count=6)
        prompts = [
            prompt_text(q, ("boxes", "grid")[i % 2], cot=i % 4 < 2)
            for scene in made
            for i, q in enumerate(scene.queries)
        ]
        build_tokenizer(prompts).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)  # type: ignore[no-any-return, no-untyped-call]


@dataclass(frozen=True)
class Plan:
    """How to train. `asks`: questions an image; `perceive`: steps before the first question."""

    steps: int = 6000
    perceive: int = 1200
    batch: int = 12
    asks: int = 4
    lr: float = 1.5e-3
    muon_lr: float = 2.5e-3
    minutes: float = 1e9
    seed: int = 0
    save_every: int = 200
    log_every: int = 20


def train(
    out: Path,
    plan: Plan,
    photos: Sequence[NDArray[np.uint8]] = (),
    device: str = "cpu",
    trainee_class: type[Trainee] = Trainee,
) -> None:
    """Train or go on training in `out`; the checkpoint there is read first."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(out / "tokenizer")
    torch.manual_seed(plan.seed)
    trainee = trainee_class(tokenizer, device)
    opts = optimizers([trainee.model, trainee.helpers], plan.lr, plan.muon_lr)
    state = load_checkpoint(out / "checkpoint.pt")
    first = shown = 0
    if state:
        trainee.model.load_state_dict(state["model"])
        trainee.helpers.load_state_dict(state["helpers"], strict=False)
        try:
            for opt, saved in zip(opts, state["optimizers"], strict=True):
                opt.load_state_dict(saved)
        except ValueError:
            print("optimizers start afresh")
        first, shown = int(state["step"]), int(state.get("scenes", 0))
    # A resumed run draws new scenes: the world is endless, so no position need be kept.
    pool = Pool(TRAIN_SEED + plan.seed + first, 3000, 0.35, photos, plan.asks + 2)
    rng = random.Random(first)
    log, clock = Log(out / "log.csv"), Clock(plan.steps, plan.minutes)
    clock.listen()
    step, sums, since = first, np.zeros(5), time.monotonic()
    while not clock.over(step):
        since_language = step - plan.perceive  # the language half warms up when its turn comes
        rate = min(
            schedule(step, plan.steps), warm(since_language if since_language >= 0 else step)
        )
        for opt in opts:
            set_rate(opt, rate)
        examples = pool.draw(plan.batch)
        images = pixels(examples, pool.rng).to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            features, perception, truth = trainee.perceive(examples, images)
            spoken = understood = torch.zeros((), device=device)
            if step >= plan.perceive:
                spoken, understood = trainee.converse(examples, features, truth, rng, plan.asks)
            loss = perception + spoken + understood
        loss.backward()  # type: ignore[no-untyped-call]
        params = [p for opt in opts for g in opt.param_groups for p in g["params"]]
        nn.utils.clip_grad_norm_(params, 2.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        step, shown = step + 1, shown + plan.batch
        parts = [t.detach().item() for t in (perception, spoken, understood)]
        sums += [parts[0], trainee.accuracy, parts[1], parts[2], trainee.picked]
        if step % plan.log_every == 0:
            mean = sums / plan.log_every
            spent = time.monotonic() - since
            log.row(
                step=step, scenes=shown, perception=mean[0], cell_accuracy=mean[1],
                language=mean[2], understanding=mean[3], picked=mean[4], rate=rate,
                scenes_per_second=plan.log_every * plan.batch / spent,
            )  # fmt: skip
            sums[:], since = 0, time.monotonic()
        if step % plan.save_every == 0 or clock.over(step):
            save_checkpoint(
                out / "checkpoint.pt",
                {
                    "model": trainee.model.state_dict(),
                    "helpers": trainee.helpers.state_dict(),
                    "optimizers": [opt.state_dict() for opt in opts],
                    "step": step,
                    "scenes": shown,
                },
            )
    trainee.export(out / "model")
