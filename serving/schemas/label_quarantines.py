"""Responses about labels that are withheld."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from serving.schemas.responses import View


class LabelQuarantineInfo(View):
    """Labels received in a period that contradict what was sent before."""

    quarantine_id: str
    model_version: int = Field(description="whose predictions they are about")
    started_at: datetime = Field(description="when the first of them was received")
    ended_at: datetime | None = Field(description="when the last of them was received; null while it goes on")
    label_source: str | None = Field(description="whose labels they are; null: everybody's")
    reasons: tuple[str, ...]
    is_exchanged: bool = Field(description="inverted labels would be what the scores announce")
    is_open: bool = Field(description="labels that arrive now are withheld, too")
    released_at: datetime | None = Field(description="since when they count again; null: they do not")
    released_by: str | None


class LabelQuarantines(BaseModel):
    """Labels that are or were withheld."""

    quarantines: list[LabelQuarantineInfo]
