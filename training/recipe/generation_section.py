"""The sections of a recipe about generated text: its prompts, and how it is judged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from rootstock.adapters.bundle.manifest import MAX_TEMPLATE_CHARACTERS
from rootstock.adapters.spec import Prompting
from rootstock.training.recipe.fields import Count, RecipeSection, Text
from rootstock.training.recipe.template import ColumnTemplate

# The figures that adapters for generation are compared by.
TextMetric = Literal[
    "perplexity", "exact_match", "rouge1", "rouge2", "rougeL", "bleu", "valid_json", "field_accuracy"
]


class Prompts(RecipeSection):
    """The texts that are made of a row: the user's message or the text to rewrite, and the answer.

    In `template` and `completion`, {column} stands for the value of a column; {{ and }} are braces.
    """

    system_prompt: Annotated[str, Field(min_length=1, max_length=2**14)] | None = Field(
        default=None,
        description="The system message of every chat without one. The bundle holds it, so a server adds it too.",
    )
    chat_template: Annotated[str, Field(min_length=1, max_length=MAX_TEMPLATE_CHARACTERS)] | None = Field(
        default=None,
        description="A chat template in Jinja, in place of the foundation's. The bundle holds it, so a server "
        "uses it too.",
    )
    template: Text = Field(default="{prompt}", description="The user's message, or the text to rewrite.")
    completion: Text = Field(default="{completion}", description="The answer, the target.")

    @property
    def prompting(self) -> Prompting:
        """Return what the bundle holds of these texts."""
        return Prompting(self.system_prompt, self.chat_template)

    @field_validator("template", "completion")
    @classmethod
    def _is_template(cls, value: str) -> str:
        if not ColumnTemplate(value).columns:
            raise ValueError(f"{value!r} names no column, so every row would be the same; add a {{column}}")
        return value


class Generation(RecipeSection):
    """How an adapter that generates text is judged, against the foundation with examples in its prompt."""

    metric: TextMetric = Field(
        default="rougeL",
        description="The figure that decides whether the adapter is better than the prompted foundation.",
    )
    shots: Annotated[int, Field(ge=0, le=64)] = Field(
        default=3,
        description="The number of training rows in the foundation's prompt, as earlier turns or paragraphs. "
        "Default for SEQ_2_SEQ_LM: 0.",
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=128, description="Most tokens of a generated answer."
    )
    rows: Count | None = Field(
        default=200,
        description="Most prompts to judge by, of validation and of test each, drawn by the split's seed; null: "
        "all.",
    )
