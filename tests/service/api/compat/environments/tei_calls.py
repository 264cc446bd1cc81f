"""Calls a server with tei-client, each adapter by its own address, and prints its answers as JSON."""

import json
import sys

from tei_client import HttpClient

TEXTS = ["Where is my parcel?", "Ada Lovelace lived in London.", "ok"]

embedder, ranking, mood = (HttpClient(f"{sys.argv[1]}/models/{name}") for name in ("embedder", "ranking", "mood"))
tokens = embedder.tokenize(TEXTS)
answers = {
    "HttpClient.health": embedder.health(),
    "HttpClient.info": embedder.info().max_input_length,
    "HttpClient.embed": embedder.embed(TEXTS),
    "HttpClient.tokenize": [one.get_ids() for one in tokens],
    "HttpClient.decode": embedder.decode([one.get_ids() for one in tokens]),
    "HttpClient.rerank": ranking.rerank("x", TEXTS).model_dump(),
    "HttpClient.classify": [one.model_dump() for one in mood.classify(TEXTS)],
}
print(json.dumps(answers))
