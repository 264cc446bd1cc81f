"""The route GET /schema.json, from which BentoML's clients read the methods of a service.

`bentoml.SyncHTTPClient` makes a Python method of each entry. The method sends its arguments by their names as the
body, and returns the answer's JSON.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, TypeAdapter

from rootstock.service.api.openai.chat import ChatBody
from rootstock.service.api.openai.chat_answer import ChatCompletion
from rootstock.service.api.openai.completions import Completion, CompletionBody
from rootstock.service.api.openai.embeddings import Embeddings, EmbeddingsBody
from rootstock.service.api.openai.moderations import Moderations, ModerationsBody
from rootstock.service.api.predict import PredictBody, Predictions
from rootstock.service.api.rerank import Ranking, RerankBody
from rootstock.service.api.task_predictions import Prediction
from rootstock.service.api.tokenize import DetokenizeBody, Detokenized, TokenizeBody, Tokens

router = APIRouter()
# By the name of the method: its native route, its body and its answer.
_METHODS: dict[str, tuple[str, type[BaseModel], Any]] = {
    "predict": ("/v1/predict", PredictBody, Prediction | Predictions),
    "embeddings": ("/v1/embeddings", EmbeddingsBody, Embeddings),
    "rerank": ("/v1/rerank", RerankBody, Ranking),
    "chat_completions": ("/v1/chat/completions", ChatBody, ChatCompletion),
    "completions": ("/v1/completions", CompletionBody, Completion),
    "moderations": ("/v1/moderations", ModerationsBody, Moderations),
    "tokenize": ("/tokenize", TokenizeBody, Tokens),
    "detokenize": ("/detokenize", DetokenizeBody, Detokenized),
}
# A client of BentoML reads the answer of such a method as one JSON text.
_STREAMS = ("stream", "stream_options")


class BentoMethod(BaseModel):
    """A method of a service: its route, and the JSON schemas of its arguments and of its answer."""

    name: str
    route: str
    doc: str | None
    input: dict[str, Any]
    output: dict[str, Any]


class BentoSchema(BaseModel):
    """The methods of a service."""

    name: str
    type: str
    routes: list[BentoMethod]


@router.get("/schema.json")
async def schema() -> BentoSchema:
    """Return the methods of this server in the form of BentoML's services."""
    return _schema()


@cache
def _schema() -> BentoSchema:
    methods = [_method(name, *parts) for name, parts in _METHODS.items()]
    return BentoSchema(name="rootstock", type="service", routes=methods)


def _method(name: str, route: str, body: type[BaseModel], answer: Any) -> BentoMethod:
    arguments = body.model_json_schema()
    for field in _STREAMS:
        arguments["properties"].pop(field, None)
    output = TypeAdapter(answer).json_schema(mode="serialization")
    return BentoMethod(name=name, route=route, doc=body.__doc__, input=arguments, output=output)
