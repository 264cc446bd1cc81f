"""Requests that work when they are sent: bodies and parameters by route.

They name the demo adapters, the foundation, and the foundation `chat`. A title says which other adapter a request
needs first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT = "Where is my parcel? Ada Lovelace sent it from London."
_REVIEWS = ["The headphones sound great.", "The left ear cup broke within a week."]
_RANKED = {"query": "Who sent it?", "documents": [_TEXT, "The headphones sound great."]}
_MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
_CHAT = {"model": "chat", "messages": _MESSAGES, "max_tokens": 20}
_COMPLETION = {"model": "chat", "prompt": "The capital of France is", "max_tokens": 5}
_SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
# A PNG file of 16 × 16 red pixels.
_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFklEQVR4nGM4IWdDEmIY1TCqYfhqAAC5FCIQyPWhDAAAAABJRU5ErkJggg=="
)
_IMAGE = {"image": f"data:image/png;base64,{_PNG}"}
_RANKER = "needs a text-ranking adapter `reranker`"
_SENTIMENT, _FOUNDATION = {"model": "review-sentiment"}, {"model": "foundation"}
_TENSORS = {
    "inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": _REVIEWS}],
}
_SCORED = {**_FOUNDATION, "text_1": "Who sent it?", "text_2": _RANKED["documents"]}

# For each route, its examples by title.
BODIES: Mapping[str, Mapping[str, Any]] = {
    "POST /v1/predict": {
        "Classify two texts": {**_SENTIMENT, "inputs": _REVIEWS},
        "Every label with its score": {**_SENTIMENT, "inputs": _TEXT, "parameters": {"top_k": None}},
        "Find entities": {
            "model": "entities",
            "inputs": _TEXT,
            "parameters": {"aggregation_strategy": "simple"},
        },
        "Embed a text": {**_FOUNDATION, "task": "feature-extraction", "inputs": _TEXT},
        "Embed an image (needs the foundation `vision`)": {"model": "vision", "inputs": _IMAGE},
        "Classify two images (needs an image-classification adapter `signs`)": {
            "model": "signs",
            "inputs": [_IMAGE, {"image": {"b64": _PNG}}],
        },
        "Let two adapters answer as one, with the head of the first": {
            "adapters": [
                {"model": "review-sentiment", "weight": 0.7},
                {"model": "support-intents", "weight": 0.3},
            ],
            "inputs": _TEXT,
        },
        "Ask two models at once": {"models": ["review-sentiment", "support-intents"], "inputs": _TEXT},
        "Let a selector choose the adapter (needs one: a text-classification adapter `router`)": {
            "model": "auto:router",
            "inputs": _REVIEWS,
            "routing": {"threshold": 0.2, "fallback": "support-intents"},
        },
        "Answer a question (needs a question-answering adapter `reader`)": {
            "model": "reader",
            "inputs": {"question": "Who sent it?", "context": _TEXT},
        },
        f"Score a pair ({_RANKER})": {
            "model": "reranker",
            "inputs": {"text": "Who sent it?", "text_pair": _TEXT},
        },
        "Choose among labels (needs a zero-shot-classification adapter `entailment`)": {
            "model": "entailment",
            "inputs": _TEXT,
            "parameters": {"candidate_labels": ["delivery", "music"]},
        },
        "Choose among labels for an image (needs a CLIP as the foundation `clip`)": {
            "model": "clip",
            "task": "zero-shot-image-classification",
            "inputs": _IMAGE,
            "parameters": {"candidate_labels": ["a hand", "a red car"]},
        },
    },
    "POST /v1/adapters": {
        "Publish an adapter of the hub (needs its host in ROOTSTOCK_SOURCE_HOSTS)": {
            "name": "tuned",
            "source": "hf://Lab/Tuned@0123456789abcdef0123456789abcdef01234567",
        },
    },
    "POST /v1/rerank": {f"Rank two documents ({_RANKER})": {"model": "reranker", **_RANKED, "top_n": 1}},
    "POST /v1/chat/completions": {
        "Answer a chat": _CHAT,
        "Stream an answer": {**_CHAT, "stream": True, "stream_options": {"include_usage": True}},
        "Answer by a JSON schema": {
            **_CHAT,
            "response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": _SCHEMA}},
        },
    },
    "POST /v1/completions": {"Continue a text": _COMPLETION},
    "POST /v1/embeddings": {
        "Embed two texts": {**_FOUNDATION, "input": _REVIEWS},
        "The first 64 numbers, in base64": {
            **_FOUNDATION,
            "input": _TEXT,
            "dimensions": 64,
            "encoding_format": "base64",
        },
        "Embed an image (Jina; needs the foundation `vision`)": {"model": "vision", "input": [{"image": _PNG}]},
    },
    "POST /v1/moderations": {"Moderate a text": {**_SENTIMENT, "input": _REVIEWS[1]}},
    "PUT /v1/adapters/{name}/aliases/{alias}": {"Point the alias at version 1": {"version": 1}},
    "PUT /v1/adapters/{name}/shadow": {
        "Version 2 computes a fifth of the requests": {"version": 2, "percent": 20}
    },
    "PUT /v1/adapters/{name}/rollback-rule": {
        "Take back a version of which a tenth of the answers differ": {"max_disagreement": 0.1},
        "Three limits on the last ten minutes": {
            "window_seconds": 600,
            "min_requests": 100,
            "max_error_rate": 0.05,
            "max_disagreement": 0.1,
            "max_p95_ratio": 1.5,
        },
    },
    "PUT /v1/adapters/{name}/aliases/{alias}/split": {
        "Send a tenth of the requests to version 2 (needs a second version)": {"candidates": {"2": 10}},
    },
    "PUT /v1/adapters/{name}/sharing": {"Let all tenants use the adapter": {"shared": True}},
    "POST /v1/keys": {
        "A key for inference that ends": {
            "tenant": "acme",
            "role": "predict",
            "label": "web shop",
            "expires_at": "2099-01-01T00:00:00Z",
        },
        "A key with quotas": {
            "role": "publish",
            "requests_per_minute": 600,
            "tokens_per_minute": 100_000,
            "stored_mb": 512,
        },
    },
    "POST /v1/keys/{id}/rotation": {"The old key stays good for ten minutes": {"overlap_seconds": 600}},
    "PUT /v1/tenants/{tenant}/quota": {"Limits for all keys of a tenant together": {"requests_per_minute": 6000}},
    "POST /tokenize": {
        "The tokens of a text (vLLM)": {**_FOUNDATION, "prompt": _TEXT},
        "The tokens of a text (TEI)": {"inputs": _TEXT},
    },
    "POST /detokenize": {"The text of tokens": {**_FOUNDATION, "tokens": [101, 7592, 2088, 102]}},
    "POST /embed": {"Embed two texts": {"inputs": _REVIEWS}},
    "POST /predict": {"Classify a text": {"inputs": _REVIEWS[0]}},
    "POST /similarity": {
        "Compare two sentences with a third": {
            "inputs": {"source_sentence": "Where is my parcel?", "sentences": _REVIEWS}
        }
    },
    "POST /decode": {"The text of tokens": {"ids": [101, 7592, 2088, 102]}},
    "POST /embeddings": {
        "Embed two texts": {"input": _REVIEWS},
        "Embed an image (Infinity; needs the foundation `vision`)": {
            "model": "vision",
            "input": _IMAGE["image"],
            "modality": "image",
        },
    },
    "POST /rerank": {
        f"Rank two documents (Infinity; {_RANKER})": {"model": "reranker", **_RANKED},
        f"Rank two texts (TEI; {_RANKER})": {"query": _RANKED["query"], "texts": _RANKED["documents"]},
    },
    "POST /classify": {
        "Classify two texts (Infinity)": {**_SENTIMENT, "input": _REVIEWS, "raw_scores": False},
        "Classify two texts (vLLM)": {**_SENTIMENT, "input": _REVIEWS},
    },
    "POST /v1/embed": {"Embed two texts": {"texts": _REVIEWS, "input_type": "search_document"}},
    "POST /v2/embed": {"Embed two texts": {"texts": _REVIEWS, "embedding_types": ["float"]}},
    "POST /v2/rerank": {f"Rank two documents ({_RANKER})": {"model": "reranker", **_RANKED}},
    "POST /pooling": {"Embed two texts": {**_FOUNDATION, "input": _REVIEWS}},
    "POST /score": {"The similarity of a text to two others": _SCORED},
    "POST /v1/score": {"The similarity of a text to two others": _SCORED},
    "POST /v1/load_lora_adapter": {
        "Publish the folder `mood` in ROOTSTOCK_ADAPTER_FOLDER": {"lora_name": "mood", "lora_path": "mood"}
    },
    "POST /v1/unload_lora_adapter": {"Delete that adapter": {"lora_name": "mood"}},
    "POST /v2/models/{name}/infer": {"Classify two texts": _TENSORS},
    "POST /v2/models/{name}/versions/{version}/infer": {"Classify two texts": _TENSORS},
    "POST /invocations": {"Classify two texts": {"instances": _REVIEWS, "params": _SENTIMENT}},
    "POST /v1/models/{name}:predict": {"Classify two texts": {"instances": _REVIEWS}},
    "POST /": {"Embed a text": {"inputs": _TEXT}},
    "POST /models/{name}": {"Classify a text": {"inputs": _TEXT}},
    "POST /models/{name}/pipeline/{task}": {"Classify two texts": {"inputs": _REVIEWS}},
    "POST /models/{name}/v1/chat/completions": {"Answer a chat": _CHAT},
    "POST /models/{name}/v1/completions": {"Continue a text": _COMPLETION},
}

# For each route, its forms with files by title. A file stands here by its name.
FORMS: Mapping[str, Mapping[str, Any]] = {
    "POST /v1/predict": {
        "Classify an image (needs an image-classification adapter `signs`)": {
            "model": "signs",
            "parameters": '{"top_k": 1}',
            "file": ["hand.png"],
        },
    },
}

# The values of parameters by route. Those under "" hold for every route that has no others.
PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "": {
        "name": "review-sentiment",
        "version": 1,
        "alias": "prod",
        "task": "text-classification",
        "tenant": "acme",
        "id": "0123456789abcdef",
    },
    "POST /models/{name}/v1/chat/completions": {"name": "chat"},
    "POST /models/{name}/v1/completions": {"name": "chat"},
    "POST /predict": {"model": "review-sentiment"},
    "POST /rerank": {"model": "reranker"},
}
