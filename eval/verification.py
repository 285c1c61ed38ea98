"""What looking at the masks and asking several times are worth, on rendered scenes, paired.

    python -m eval.verification rounds   --data S --out DIR [--strategy NAME]... [--verify 2]
    python -m eval.verification recovery --data S --out DIR [--strategy NAME]... [--share 0.3]
    python -m eval.verification samples  --data S --out DIR [--samples 1 4 16]
    python -m eval.verification cache    --data S --mllm transformers:FOLDER [--side 1024]
    python -m eval.verification sparse   --data S --mllm transformers:FOLDER [--side 512]

rounds    gIoU without and with `--verify`, with clear cases decided by the scores and with all
          asked about; the paired difference, absent queries, and the cost of an image
recovery  the same where a share of stage 1's replies is spoiled: another object's box, half a box,
          a missing target, a surplus one, or "no target"; how much of the gIoU lost is won back
samples   gIoU and cost of K sampled replies, and how often a reply is right at a given agreement
          (reliability.svg)
cache     processor time of a second round's question, one reply token, with what the model computed
          for the first round's and without; e.g. the folder that eval.fullsize makes
sparse    tokens, processor time and memory of the prompt after a closer look: the whole picture of
          `--zoom sparse`, the patches of it that the mask touches, and the crop of `--zoom box`

Every run has a folder of its own under `--out`; a second call resumes.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eval import fullsize
from eval._common import make_parser
from eval._common import run as run_command
from rsvp import presets, registry
from rsvp.checking import MaskChecker
from rsvp.dialogue import Dialogue
from rsvp.errors import BadInput, UnparsableReply
from rsvp.evaluation import records
from rsvp.evaluation.compare import compare
from rsvp.evaluation.records import RECORDS, Record
from rsvp.evaluation.runner import evaluate
from rsvp.evaluation.summary import Summary
from rsvp.images import load_image, resize
from rsvp.masks import box_to_mask
from rsvp.pipeline import Pipeline
from rsvp.platform.files import parse_json, read_bytes, write_text
from rsvp.types import (
    Box,
    Image,
    Message,
    PackedMask,
    Proposal,
    Reasoning,
    Reply,
    Target,
    Usage,
)  # fmt: skip
from rsvp.verify import VerifyOptions

STRATEGIES = ("boxes", "grid", "marks")
SHARE = 0.3  # of stage 1's replies that are spoiled
FOUND = 0.5  # IoU from which on an answer is right
BINS = 5  # of the reliability diagram
SEED = 17

Objects = Mapping[str, Sequence[tuple[str, Box]]]  # by image file: names and boxes


@dataclass(frozen=True, slots=True)
class RunCost:
    """Means over the samples of a run."""

    calls: float
    tokens: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.calls:.2f} calls, {self.tokens:.0f} tokens, {self.seconds:.2f} s"


def scene_objects(data: Path) -> Objects:
    """What is in every image of a folder of scenes."""
    file = data / "scenes.json"
    document: Any = parse_json(read_bytes(file), str(file))
    return {
        str((data / scene["image"]).resolve()): [
            (o["name"], Box(*o["box"])) for o in scene["objects"]
        ]
        for scene in document["scenes"]
    }


def spoil(reasoning: Reasoning, objects: Sequence[tuple[str, Box]], rng: Any) -> Reasoning:
    """A reply with one mistake of those that apply; `objects` are all of the image's."""
    targets = list(reasoning.proposals)
    taken = [t.box for t in targets if t.box is not None]
    others = [(name, box) for name, box in objects if all(_apart(box, b) for b in taken)]
    ways = ["surplus"] * bool(others)
    if targets:
        ways += ["half", "none", *["other"] * bool(others), *["missing"] * (len(targets) > 1)]
    if not ways:
        return reasoning
    way, place = str(rng.choice(ways)), int(rng.integers(len(targets))) if targets else 0
    name, box = others[int(rng.integers(len(others)))] if others else ("", None)
    if way == "surplus":
        targets.append(Proposal(name, box))
    elif way == "missing":
        del targets[place]
    elif way == "none":
        targets = []
    else:
        wrong = box if way == "other" else _half(targets[place].box, rng)
        targets[place] = Proposal(targets[place].label, wrong or targets[place].box,
                                  targets[place].points if wrong is None else ())  # fmt: skip
    return replace(reasoning, proposals=tuple(targets))


def _apart(a: Box, b: Box) -> bool:
    shared = a.intersection(b)
    return shared is None or shared.area < 0.3 * min(a.area, b.area)


def _half(box: Box | None, rng: Any) -> Box | None:
    if box is None:
        return None
    (x, y), first = box.center, rng.random() < 0.5
    if rng.random() < 0.5:
        return replace(box, x1=x) if first else replace(box, x0=x)
    return replace(box, y1=y) if first else replace(box, y0=y)


def spoiled(strategy: Any, objects: Objects, share: float, seed: int = SEED) -> Any:
    """A strategy that spoils a share of the replies that it reads, the same ones in every run."""
    made = copy.copy(strategy)

    def read(text: str, image: Image, *rest: Any) -> Reasoning:
        reasoning: Reasoning = strategy.read(text, image, *rest)
        code = hashlib.sha256(f"{seed} {image.sha256} {text}".encode()).digest()
        rng = np.random.default_rng(list(code))
        if rng.random() >= share or not reasoning.understood:
            return reasoning
        return spoil(reasoning, objects[str(Path(str(image.path)).resolve())], rng)

    made.read = read
    return made


class _Runs:
    """Runs of one preset that share its models."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.whole = Pipeline.from_preset(args.preset)

    def run(self, folder: str, strategy: Any, **options: Any) -> tuple[Summary, RunCost]:
        """Run the scenes into a folder of its own, or finish what is there."""
        print(f"{folder} …", file=sys.stderr)
        whole, out = self.whole, self.args.out / folder
        pipeline = Pipeline(whole.mllm, strategy, whole.segmenter, **options)
        found = evaluate(
            "scenes", self.args.data, pipeline, out, limit=self.args.limit, resume=True,
            oracle=False, settings={"preset": self.args.preset, "experiment": folder},
        )  # fmt: skip
        if not isinstance(found, Summary):
            raise BadInput(f"{self.args.data} holds questions: scenes with queries are needed")
        return found, run_cost(list(records.read(out / RECORDS)))


def run_cost(rows: Sequence[Record]) -> RunCost:
    """What a sample of a run costs."""
    used = [r.usage for r in rows if r.usage]
    tokens = [u.prompt_tokens + u.completion_tokens for u in used]
    calls, seconds = [u.calls for u in used], [r.seconds["total"] for r in rows]
    return RunCost(*(float(np.mean(values or [0])) for values in (calls, tokens, seconds)))


def rounds(args: argparse.Namespace) -> str:
    """gIoU without and with verification."""
    runs, lines = _Runs(args), list[str]()
    ways: dict[str, Any] = {
        "none": 0,
        "clear": VerifyOptions(args.verify),
        "all": VerifyOptions(args.verify, clear=None),
    }
    for name in args.strategy or STRATEGIES:
        for way, verify in ways.items():
            found, cost = runs.run(f"{name}-{way}", registry.make("strategy", name), verify=verify)
            gain = ""
            if way != "none":
                base, new = (args.out / f"{name}-{one}" for one in ("none", way))
                gain = f"difference {compare(base, new).overall.giou}"
            absent = f"absent {found.absent_detected}, false absents {found.false_absent}"
            lines.append(f"{name:<7}{way:<7}gIoU {found.giou}  {gain}\n    {absent}; {cost}")
    return "\n".join(lines)


def recovery(args: argparse.Namespace) -> str:
    """How much of what spoiled replies cost is won back."""
    if not 0 < args.share <= 1:
        raise BadInput(f"the share is above 0 and at most 1, found {args.share}")
    runs, lines, objects = _Runs(args), list[str](), scene_objects(args.data)
    for name in args.strategy or STRATEGIES:
        strategy = registry.make("strategy", name)
        bad = spoiled(strategy, objects, args.share)
        giou = {}
        for way, one, verify in (
            ("none", strategy, 0),
            ("spoiled", bad, 0),
            ("spoiled-clear", bad, VerifyOptions(args.verify)),
            ("spoiled-all", bad, VerifyOptions(args.verify, clear=None)),
        ):
            found, cost = runs.run(f"{name}-{way}", one, verify=verify)
            assert found.giou is not None
            giou[way] = found.giou.mean
            lost, won = giou["none"] - giou.get("spoiled", 0), giou[way] - giou.get("spoiled", 0)
            back = f"  won back {won / lost:.2f} of {lost:.3f}" if verify and lost > 0 else ""
            lines.append(f"{name:<7}{way:<15}gIoU {found.giou}{back}  {cost}")
    return "\n".join(lines)


def samples(args: argparse.Namespace) -> str:
    """gIoU, cost and reliability of sampled replies."""
    runs, lines = _Runs(args), list[str]()
    for name in args.strategy or STRATEGIES[:1]:
        for count in args.samples:
            folder = f"{name}-{count}-samples"
            found, cost = runs.run(folder, registry.make("strategy", name), samples=count)
            lines.append(f"{name:<7}K={count:<4}gIoU {found.giou}  {cost}")
            bins = reliability(list(records.read(args.out / folder / RECORDS)))
            for low, n, said, right in bins:
                lines.append(f"    from {low:.1f}: n {n}, agreement {said:.2f}, right {right:.2f}")
            if bins:
                write_text(args.out / folder / "reliability.svg", diagram(bins))
    return "\n".join(lines)


def reliability(rows: Sequence[Record]) -> list[tuple[float, int, float, float]]:
    """By agreement: lower edge, number of samples, mean agreement, share that is right."""
    known = [(r.agreement, (r.iou or 0.0) >= FOUND) for r in rows if r.agreement is not None]
    found = []
    for k in range(BINS):
        inside = [(a, ok) for a, ok in known if min(int(a * BINS), BINS - 1) == k]
        if inside:
            said, right = np.mean(np.array(inside, dtype=float), axis=0)
            found.append((k / BINS, len(inside), float(said), float(right)))
    return found


def diagram(bins: Sequence[tuple[float, int, float, float]], side: int = 240) -> str:
    """The reliability diagram as SVG: bars of what is right, and the diagonal."""
    width = side / BINS
    bars = "".join(
        f'<rect x="{low * side:.1f}" y="{side - right * side:.1f}" width="{width - 2:.1f}" '
        f'height="{right * side:.1f}" fill="#1e90ff"><title>n {n}, agreement {said:.2f}, right '
        f"{right:.2f}</title></rect>"
        for low, n, said, right in bins
    )
    line = f'<path d="M0 {side}L{side} 0" stroke="#000" stroke-dasharray="4"/>'
    view = f'viewBox="-4 -4 {side + 8} {side + 8}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {view}>{bars}{line}</svg>\n'


def _local(args: argparse.Namespace, **options: Any) -> tuple[Any, Pipeline, Image]:
    """The local model with one reply token, a pipeline on it, and an image of the right side."""
    mllm = registry.make("mllm", args.mllm, max_tokens=1, **options)
    picture = next(iter(scene_objects(args.data)))
    image = load_image(resize(load_image(picture).rgb, (args.side, args.side)))
    strategy, segmenter = registry.make("strategy", "boxes"), registry.make("segmenter", "box")
    return mllm, Pipeline(mllm, strategy, segmenter, frame="0-1000"), image


def cache(args: argparse.Namespace) -> str:
    """What keeping the beginning of a conversation saves a local model."""
    mllm, pipeline, image = _local(args)
    config = pipeline.prompt_config
    dialogue = Dialogue(mllm, config.profile, system="system.verify")
    checker = MaskChecker(image, "the thing on the left", dialogue, config)
    dialogue.single_turn, dialogue.max_reasks = True, 0  # a branch asks once
    times: dict[bool, list[list[float]]] = {False: [], True: []}
    for _ in range(args.repeat):
        for kept, measured in times.items():
            mllm.keep_prefix, seconds = kept, []
            for corner in (0, args.side // 4):
                box = Box(corner, corner, corner + args.side // 2, corner + args.side // 2)
                mask = PackedMask.pack(box_to_mask(box, (args.side, args.side)))
                before = time.process_time()
                with contextlib.suppress(UnparsableReply):
                    checker.ask([Target("thing", box, 1.0, mask)], [1])
                seconds.append(time.process_time() - before)
            measured.append(seconds)
    (first, second), (_, again) = (np.median(measured, axis=0) for measured in times.values())
    asked = dialogue.budget.usage.prompt_tokens // (4 * args.repeat)
    return (
        f"first round {first:.2f} s, second {second:.2f} s; kept: {again:.2f} s, "
        f"{again / second:.2f} of it ({mllm.reused_tokens} of {asked} tokens)"
    )


SCRIPT = (
    '{"reason": "too small", "look": ["the cup"], "answer": null}',
    '{"reason": "there", "targets": [{"label": "the cup", "bbox_2d": [400, 400, 600, 600]}]}',
    '{"reason": "seen", "answer": "red"}',
)


def sparse(args: argparse.Namespace) -> str:
    """What the prompt after a closer look costs: the whole picture, its patches, and a crop."""
    mllm, pipeline, image = _local(args, keep_prefix=False)
    asked: list[list[Message]] = []
    real = mllm.reply

    def scripted(messages: list[Message], **_: Any) -> Reply:
        asked.append(messages)
        return Reply(SCRIPT[len(asked) - 1], Usage(1, 1, 1))

    prompts: dict[str, list[Message]] = {}
    for zoom in ("box", "sparse"):
        mllm.reply = scripted
        asked.clear()
        pipeline.answer(image, "Which colour has the cup?", zoom=zoom, looks=1)
        prompts[zoom] = asked[-1]
    prompts["whole"] = [replace(message, kept=None) for message in prompts["sparse"]]
    real(prompts["box"][:1])  # loads the model
    threading.Thread(target=fullsize.sample_memory, daemon=True).start()
    idle, found = fullsize.anonymous_memory(), dict[str, list[tuple[float, float]]]()
    tokens = dict[str, int]()
    for _ in range(args.repeat):
        for name, messages in prompts.items():
            fullsize.MEASURED["anonymous"] = 0
            before = time.process_time()
            tokens[name] = real(messages).usage.prompt_tokens
            seconds = time.process_time() - before
            found.setdefault(name, []).append((seconds, fullsize.MEASURED["anonymous"] - idle))
    lines = []
    for name, measured in found.items():
        seconds, memory = np.median(measured, axis=0)
        lines.append(f"{name:<7}{tokens[name]} tokens, {seconds:.2f} s, {memory / 1e6:.0f} MB")
    return "\n".join(lines)


EXPERIMENTS = {
    "rounds": rounds,
    "recovery": recovery,
    "samples": samples,
    "cache": cache,
    "sparse": sparse,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = make_parser("verification", __doc__)
    parser.add_argument("experiment", choices=tuple(EXPERIMENTS))
    parser.add_argument("--data", type=Path, required=True, help="a folder of rendered scenes")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where the runs go")
    parser.add_argument("--mllm", default="transformers:embedded", help="of cache and sparse")
    parser.add_argument("--side", type=int, default=1024, help="of the same: of the image, pixels")
    parser.add_argument("--repeat", type=int, default=1, help="of the same: medians of so many")
    parser.add_argument("--preset", default=presets.DEFAULT)
    parser.add_argument("--strategy", action="append", help="may be given several times")
    parser.add_argument("--verify", type=int, default=2, help="rounds")
    parser.add_argument("--share", type=float, default=SHARE, help="of spoiled replies")
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--limit", type=int, help="only the first N samples")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    print(EXPERIMENTS[args.experiment](args))


if __name__ == "__main__":
    raise SystemExit(main())
