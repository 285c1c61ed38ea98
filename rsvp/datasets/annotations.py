"""The base of the models of annotation files; apart, as scoring alone must not load pydantic."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class AnnotationModel(BaseModel):
    """Strict types, unknown fields ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")
