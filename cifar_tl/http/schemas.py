"""What is asked and what JSON comes back, as the OpenAPI document tells it."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cifar_tl.answers import Answer, Asked, Framing
from cifar_tl.runs.store import RunStatus
from cifar_tl.runs.summary import RunSummary

MOST_CLASSES = 100
_DIGITS = 6


class Problem(BaseModel):
    """Every error."""

    error: str = Field(description="One line: what is wrong, and what to do.")


class PredictQuery(BaseModel):
    """The query of a prediction; what is not known here is refused."""

    model_config = ConfigDict(extra="forbid")

    run: str = Field(description="Id of the run whose model answers: see /api/runs.", max_length=200)
    top_k: int = Field(5, ge=1, le=MOST_CLASSES, description="How many of the likeliest classes to tell.")
    framing: Literal["middle", "whole"] = Field("middle", description="What is taken of a picture that is no square.")
    average_flips: bool | None = Field(None, description="Average with the mirror image; as the run was evaluated unless given.")

    @property
    def asked(self) -> Asked:
        return Asked(self.top_k, Framing(self.framing.capitalize()), self.average_flips)


class ClassShare(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    class_name: str = Field(alias="class")
    superclass: str | None
    probability: float


class SuperclassShare(BaseModel):
    superclass: str
    probability: float


class FileAnswer(BaseModel):
    """What the model says of one picture, or why it says nothing."""

    name: str
    classes: list[ClassShare] = Field(description="Likeliest first.")
    superclasses: list[SuperclassShare] = Field(description="Likeliest first; empty where the data set has none.")
    familiarity: float | None = Field(
        description="Share of dev images that are at least as unlike the training images; 0: like none of them."
    )
    seconds: float
    error: str | None = Field(description="Why this file could not be read; null for an answer.")


class PredictAnswer(BaseModel):
    run_id: str
    files: list[FileAnswer] = Field(description="One for each picture, in the order they were sent.")


class Run(BaseModel):
    id: str
    name: str = Field(description="As people call it; may be empty.")
    status: RunStatus
    data: str
    backbone: str | None = Field(description="null where the folder cannot be read.")
    classes: int | None = Field(description="How many; null before the run has got that far.")
    test_accuracy: float | None = Field(description="In [0, 1]; null before the run is complete.")
    has_weights: bool = Field(description="Whether it can answer for pictures.")


class Runs(BaseModel):
    runs: list[Run] = Field(description="Newest first.")


class Health(BaseModel):
    ok: bool
    version: str
    prediction_process: bool = Field(description="Whether it lives; the first prediction starts it.")


def file_answer(answer: Answer) -> FileAnswer:
    """As JSON has it: without previews, and rounded to what means something."""
    return FileAnswer(
        name=answer.name,
        classes=[
            ClassShare(class_name=item.class_name, superclass=item.superclass_name, probability=round(item.probability, _DIGITS))
            for item in answer.classes
        ],
        superclasses=[
            SuperclassShare(superclass=item.superclass_name, probability=round(item.probability, _DIGITS)) for item in answer.superclasses
        ],
        familiarity=answer.familiarity,
        seconds=round(answer.seconds, _DIGITS),
        error=answer.error or None,
    )


def run_row(row: RunSummary, classes: int | None, has_weights: bool) -> Run:
    """One run of the list; numbers that a damaged log has and JSON has not are left out."""
    accuracy = row.test_accuracy
    return Run(
        id=row.run_id,
        name=row.name,
        status=row.status,
        data=row.data_title,
        backbone=row.config.backbone if row.config else None,
        classes=classes,
        test_accuracy=accuracy if accuracy is not None and math.isfinite(accuracy) else None,
        has_weights=has_weights,
    )
