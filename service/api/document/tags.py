"""The groups of routes in the OpenAPI document."""

from __future__ import annotations

from dataclasses import dataclass

from rootstock.service.api.document.error_codes import INFERENCE, TEXT


@dataclass(frozen=True)
class Tag:
    """A group of routes: its name, its description in Markdown, and the error codes of its POST routes."""

    name: str
    description: str
    codes: tuple[str, ...] = ()


PREDICTIONS = Tag(
    "Predictions",
    "Inputs for adapters with a head, and for the foundation alone. Each task has its own inputs and answers.",
    INFERENCE,
)
OPENAI = Tag("OpenAI", "Chats, completions, embeddings and moderations in the form of OpenAI's API.", INFERENCE)
TOKENS = Tag("Tokens", "How the tokenizer of a foundation reads a text.", TEXT)
MODELS = Tag("Models", "The references that a request may name, and the limits of this server.")
ADAPTERS = Tag(
    "Adapters",
    "Upload adapters, read what they are, move their aliases, and delete them. Changes need a key of the role "
    "`publish` or `admin`.",
)
KEYS = Tag(
    "Keys",
    "The keys of tenants and their quotas. These routes need a key of the role `admin`. One of the tenant "
    "`default` may name any tenant, and any other one its own alone.",
)
SERVER = Tag("Server", "The state of this server. These routes need no key, except `/` and `/version`.")
EMBEDDING_SERVERS = Tag(
    "TEI, Infinity and Cohere",
    "The forms of text-embeddings-inference, Infinity and Cohere. `/rerank`, `/classify` and `/tokenize` have "
    "two each, and the keys of the body tell them apart.",
    INFERENCE,
)
VLLM = Tag("vLLM", "The forms of vLLM's server.", INFERENCE)
KSERVE = Tag("KServe and MLflow", "The Open Inference Protocol v2, KServe's v1, and MLflow's scoring.", INFERENCE)
HUGGING_FACE = Tag("Hugging Face", "The form of Hugging Face's inference API.", INFERENCE)

TAGS = (
    PREDICTIONS, OPENAI, ADAPTERS, KEYS, MODELS, TOKENS, SERVER, EMBEDDING_SERVERS, VLLM, KSERVE, HUGGING_FACE,
)  # fmt: skip
