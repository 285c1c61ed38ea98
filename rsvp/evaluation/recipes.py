"""The recipes of `eval/`: what a benchmark needs, and the runs that `rsvp eval --recipe` makes.

One TOML file a benchmark. In a wheel they lie in the package.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rsvp import registry
from rsvp.errors import BadInput
from rsvp.platform.files import validate


class _RecipeModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RecipeDownload(_RecipeModel):
    """What to get, and where it goes."""

    what: str
    source: str = Field(alias="from")
    gigabytes: float | None = Field(default=None, gt=0)
    place: str
    command: str | None = None

    def __str__(self) -> str:
        return f"{self.what}: {self.command or f'from {self.source} into {self.place}'}"


class RecipeRun(_RecipeModel):
    """A command of rsvp, to be run where the downloads lie."""

    preset: str
    purpose: str = Field(alias="for")
    command: str

    @property
    def arguments(self) -> list[str]:
        """Of `rsvp`, its command first."""
        return shlex.split(self.command)[1:]

    @property
    def name(self) -> str:
        """The last part of the run's folder; empty where it has none."""
        words = self.arguments
        return Path(words[words.index("--out") + 1]).name if "--out" in words else ""


class Recipe(_RecipeModel):
    """How a benchmark is run, and what others report."""

    benchmark: str
    notes: list[str] = []
    download: list[RecipeDownload]
    run: list[RecipeRun] = Field(min_length=1)
    reference: list[dict[str, Any]] = []

    def evaluations(self) -> list[RecipeRun]:
        return [run for run in self.run if run.arguments[0] == "eval"]

    def missing(self, data: str) -> str:
        fitting = [d for d in self.download if Path(data).is_relative_to(d.place)]
        return f"there is no {data}; get {'; '.join(map(str, fitting or self.download))}"


def names() -> list[str]:
    return sorted(file.stem for file in _folder().glob("*.toml"))


def load(name: str) -> Recipe:
    """The recipe of this name; BadInput lists the known ones."""
    if name not in names():
        raise BadInput(registry.unknown("recipe", name, names()))
    file = _folder() / f"{name}.toml"
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    return validate(Recipe.model_validate, content, str(file))


def choose(name: str, preset: str) -> tuple[Recipe, Sequence[RecipeRun]]:
    """The runs of a recipe with a preset; or the one run of this name, whatever its preset.

    Raises:
        BadInput: there is none; the message names those that there are.
    """
    for known in names() if name not in names() else ():
        recipe = load(known)
        if one := [run for run in recipe.evaluations() if run.name == name]:
            return recipe, one
    recipe = load(name)
    runs = [run for run in recipe.evaluations() if run.preset == preset]
    if not runs:
        others = dict.fromkeys(f"--preset {run.preset}" for run in recipe.evaluations())
        instead = " or ".join(others) or "; ".join(run.command for run in recipe.run)
        raise BadInput(f"the recipe {name} has no run with --preset {preset}: {instead}")
    return recipe, runs


def _folder() -> Path:
    """Inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_recipes", package.parent / "eval"):
        if folder.is_dir():
            return folder
    raise BadInput(
        f"the recipes are missing from this installation of rsvp: {package / '_recipes'}"
    )
