"""The vocabulary of the rendered world: names, groups, uses and sprites.

Names, keywords and glyphs come from CLDR and Noto Color Emoji (see NOTICE); which of them are in
the world, what a group is called and what things are used for is written here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WORLD = Path(__file__).parent / "world"
TILE = 128

# Group as a person would say it -> CLDR names.
GROUPS: dict[str, tuple[str, ...]] = {
    "fruit": (
        "banana", "pineapple", "strawberry", "watermelon", "grapes", "red apple", "lemon", "pear",
    ),
    "vegetable": (
        "carrot", "broccoli", "eggplant", "ear of corn", "cucumber", "hot pepper", "onion",
    ),
    "meal": (
        "bread", "hamburger", "pizza", "hot dog", "french fries", "cheese wedge", "croissant",
        "pretzel",
    ),
    "dessert": (
        "doughnut", "cookie", "birthday cake", "lollipop", "soft ice cream", "chocolate bar",
        "honey pot",
    ),
    "drink": (
        "teacup without handle", "wine glass", "beer mug", "teapot", "glass of milk",
        "cup with straw", "baby bottle",
    ),
    "kitchen tool": ("kitchen knife", "spoon", "fork and knife", "chopsticks"),
    "mammal": (
        "dog", "cat", "elephant", "horse", "cow", "rabbit", "tiger", "giraffe", "pig",
    ),
    "bird": ("penguin", "duck", "owl", "parrot", "flamingo", "eagle", "rooster"),
    "sea animal": ("octopus", "crab", "dolphin", "tropical fish", "shark", "blowfish", "turtle"),
    "bug": ("butterfly", "honeybee", "lady beetle", "snail", "ant", "spider", "scorpion"),
    "plant": (
        "rose", "sunflower", "tulip", "cactus", "palm tree", "mushroom", "potted plant",
        "four leaf clover",
    ),
    "vehicle": (
        "automobile", "bus", "bicycle", "tractor", "fire engine", "airplane", "rocket", "sailboat",
        "helicopter", "motorcycle",
    ),
    "piece of sports equipment": (
        "soccer ball", "basketball", "american football", "tennis", "baseball", "boxing glove",
        "ice skate", "skateboard",
    ),
    "toy": (
        "teddy bear", "kite", "yo-yo", "puzzle piece", "game die", "balloon", "nesting dolls",
    ),
    "piece of clothing": (
        "t-shirt", "jeans", "necktie", "dress", "socks", "gloves", "running shoe", "top hat",
        "billed cap", "high-heeled shoe",
    ),
    "musical instrument": (
        "guitar", "violin", "trumpet", "saxophone", "drum", "accordion", "banjo",
    ),
    "workshop tool": (
        "hammer", "wrench", "screwdriver", "axe", "carpentry saw", "toolbox", "magnet", "ladder",
    ),
    "electronic device": (
        "laptop", "mobile phone", "television", "camera", "radio", "computer mouse", "headphone",
        "telephone",
    ),
    "household item": (
        "chair", "bed", "door", "bathtub", "broom", "bucket", "toothbrush", "sponge",
    ),
    "writing or office item": (
        "pencil", "paintbrush", "scissors", "straight ruler", "paperclip", "pushpin", "envelope",
    ),
    "clock": ("watch", "alarm clock", "hourglass done", "mantelpiece clock"),
    "light": ("candle", "light bulb", "flashlight"),
    "medical item": ("syringe", "pill", "stethoscope", "thermometer", "microscope"),
}  # fmt: skip

# What one would do -> the names that serve. Read as "what would you {use} with?".
USES: dict[str, tuple[str, ...]] = {
    "cut the bread": ("kitchen knife",),
    "cut paper": ("scissors",),
    "drive in a nail": ("hammer",),
    "turn a screw": ("screwdriver",),
    "tighten a bolt": ("wrench",),
    "chop wood": ("axe",),
    "saw a plank": ("carpentry saw",),
    "eat soup": ("spoon",),
    "eat sushi": ("chopsticks",),
    "sweep the floor": ("broom",),
    "carry water": ("bucket",),
    "brush your teeth": ("toothbrush",),
    "wash the dishes": ("sponge",),
    "draw a straight line": ("straight ruler",),
    "write a letter": ("pencil",),
    "paint a picture": ("paintbrush",),
    "hold papers together": ("paperclip",),
    "tell the time": ("watch", "alarm clock", "hourglass done", "mantelpiece clock"),
    "light a dark room": ("candle", "light bulb", "flashlight"),
    "take a photograph": ("camera",),
    "call a friend": ("mobile phone", "telephone"),
    "listen to music": ("headphone", "radio"),
    "play a tune": (
        "guitar", "violin", "trumpet", "saxophone", "drum", "accordion", "banjo",
    ),
    "reach a high shelf": ("ladder",),
    "measure a fever": ("thermometer",),
    "listen to a heartbeat": ("stethoscope",),
    "give an injection": ("syringe",),
    "look at cells": ("microscope",),
    "pick up iron": ("magnet",),
    "send a letter": ("envelope",),
    "pin up a note": ("pushpin",),
    "drink beer": ("beer mug",),
    "drink wine": ("wine glass",),
    "pour tea": ("teapot",),
    "feed a baby": ("baby bottle",),
    "fly to the moon": ("rocket",),
    "plough a field": ("tractor",),
    "put out a fire": ("fire engine",),
    "cross the sea": ("sailboat",),
    "score a goal": ("soccer ball",),
    "glide over ice": ("ice skate",),
    "warm your hands": ("gloves",),
    "run a race": ("running shoe",),
    "keep the sun off your face": ("billed cap",),
    "type a report": ("laptop",),
    "sleep": ("bed",),
    "celebrate a birthday": ("birthday cake", "balloon"),
}  # fmt: skip


# The same for what needs no "with": read as "what would you {use}?" or "something to {use}".
USES_ALONE: dict[str, tuple[str, ...]] = {
    "drink from": (
        "teacup without handle", "wine glass", "beer mug", "glass of milk", "cup with straw",
        "baby bottle",
    ),
    "sit on": ("chair",),
    "sleep in": ("bed",),
    "wash yourself in": ("bathtub",),
    "ride on": ("bicycle", "motorcycle", "skateboard", "horse"),
    "travel in": ("automobile", "bus", "airplane", "helicopter"),
    "wear on your feet": ("socks", "running shoe", "high-heeled shoe"),
    "wear on your head": ("top hat", "billed cap"),
    "climb up": ("ladder", "palm tree"),
    "knock on": ("door",),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Thing:
    """One name of the world.

    Attributes:
        index: its place in the vocabulary, and in the atlas.
        keywords: CLDR's, less the name itself and its group.
    """

    index: int
    name: str
    group: str
    keywords: tuple[str, ...]


@lru_cache(maxsize=1)
def things() -> tuple[Thing, ...]:
    """The vocabulary, in the atlas's order."""
    listed = json.loads((WORLD / "objects.json").read_text(encoding="utf-8"))["objects"]
    return tuple(
        Thing(
            i,
            entry["name"],
            entry["group"],
            tuple(k for k in entry["keywords"] if k not in (entry["name"], entry["group"])),
        )
        for i, entry in enumerate(listed)
    )


@lru_cache(maxsize=1)
def keywords() -> dict[str, frozenset[int]]:
    """Keyword -> the things that it speaks of; keywords that fit over six things say too little."""
    found: dict[str, set[int]] = {}
    for thing in things():
        for word in thing.keywords:
            found.setdefault(word, set()).add(thing.index)
    taken = {t.name for t in things()} | set(GROUPS)
    return {
        word: frozenset(which)
        for word, which in sorted(found.items())
        if len(which) <= 6 and word not in taken and word.isascii()
    }


@lru_cache(maxsize=1)
def uses() -> dict[str, frozenset[int]]:
    """Use -> the things that serve it."""
    return by_index(USES)


@lru_cache(maxsize=1)
def uses_alone() -> dict[str, frozenset[int]]:
    """Use that needs no "with" -> the things that serve it."""
    return by_index(USES_ALONE)


def by_index(table: dict[str, tuple[str, ...]]) -> dict[str, frozenset[int]]:
    """The table with vocabulary indices for names."""
    index = {t.name: t.index for t in things()}
    return {use: frozenset(index[name] for name in names) for use, names in table.items()}


@lru_cache(maxsize=1)
def sprites() -> NDArray[np.uint8]:
    """(n, TILE, TILE, 4) uint8 RGBA, straight alpha, one tile a thing."""
    with Image.open(WORLD / "sprites.png") as atlas:
        pixels = np.asarray(atlas.convert("RGBA"))
    columns = pixels.shape[1] // TILE
    rows = pixels.shape[0] // TILE
    tiles = pixels.reshape(rows, TILE, columns, TILE, 4).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, TILE, TILE, 4)[: len(things())])


def plural(name: str) -> str:
    """The English plural, well enough for this vocabulary."""
    irregular = {"grapes", "jeans", "socks", "gloves", "scissors", "chopsticks", "nesting dolls",
                 "french fries", "tropical fish", "tennis", "broccoli", "fork and knife",
                 "hourglass done", "teacup without handle", "cup with straw", "glass of milk",
                 "ear of corn"}  # fmt: skip
    if name in irregular:
        return name
    if name.endswith(("sh", "ch", "x", "s")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"
