"""Calls a server with infinity_client, and prints its answers as JSON."""

import json
import sys

from infinity_client import Client
from infinity_client.api.default import classify, embeddings, health, models, rerank
from infinity_client.models import ClassifyInput, OpenAIEmbeddingInputText, RerankInput

TEXTS = ["Where is my parcel?", "Ada Lovelace lived in London.", "ok"]

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
answers = {
    "embeddings.sync": embeddings.sync(
        client=client, body=OpenAIEmbeddingInputText(input_=TEXTS, model="embedder")
    ).to_dict(),
    "rerank.sync": rerank.sync(
        client=client, body=RerankInput(query="x", documents=TEXTS, model="ranking", return_documents=True)
    ).to_dict(),
    "classify.sync": classify.sync(client=client, body=ClassifyInput(input_=TEXTS, model="mood")).to_dict(),
    "models.sync": models.sync(client=client).to_dict(),
    "health.sync": health.sync(client=client).to_dict(),
}
print(json.dumps(answers))
