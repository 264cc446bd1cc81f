"""Calls a server with llama-index, and prints its answers as JSON."""

import json
import sys

from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from llama_index.llms.openai_like import OpenAILike

TEXTS = ["Where is my parcel?", "Ada Lovelace lived in London.", "ok"]

url = sys.argv[1]
address = {"api_base": f"{url}/v1", "api_key": "unused", "max_retries": 0}
embedding = OpenAILikeEmbedding(model_name="embedder", **address)
tei = TextEmbeddingsInference(model_name="embedder", base_url=f"{url}/models/embedder")
plain = OpenAILike(model="tiny-chat", temperature=0.0, max_tokens=8, **address)
chat = OpenAILike(model="tiny-chat", temperature=0.0, max_tokens=8, is_chat_model=True, **address)
messages = [ChatMessage(role="user", content=TEXTS[0])]
answers = {
    "OpenAILikeEmbedding.get_text_embedding_batch": embedding.get_text_embedding_batch(TEXTS),
    "TextEmbeddingsInference.get_text_embedding_batch": tei.get_text_embedding_batch(TEXTS),
    "OpenAILike.complete": plain.complete(TEXTS[0]).text,
    "OpenAILike.stream_complete": [part.delta for part in plain.stream_complete(TEXTS[0])],
    "OpenAILike.chat": chat.chat(messages).message.content,
    "OpenAILike.stream_chat": [part.delta for part in chat.stream_chat(messages)],
}
print(json.dumps(answers))
