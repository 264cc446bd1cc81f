"""Calls a server with langchain-huggingface, and prints its answers as JSON."""

import json
import sys

from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint

PROMPT = "Where is my parcel?"

url = f"{sys.argv[1]}/models/tiny-chat"
greedy = {"max_new_tokens": 8, "typical_p": None, "top_p": None, "temperature": None}
endpoint = HuggingFaceEndpoint(endpoint_url=url, **greedy)
chat = ChatHuggingFace(llm=endpoint, temperature=0.0)
try:
    HuggingFaceEndpoint(endpoint_url=url, max_new_tokens=8).invoke(PROMPT)
    refusal = ""
except Exception as error:
    refusal = f"{error} {getattr(getattr(error, 'response', None), 'text', '')}"
answers = {
    "HuggingFaceEndpoint.invoke": endpoint.invoke(PROMPT),
    "HuggingFaceEndpoint.stream": list(endpoint.stream(PROMPT)),
    "ChatHuggingFace.invoke": chat.invoke(PROMPT, temperature=0).content,
    "ChatHuggingFace.stream": [chunk.content for chunk in chat.stream(PROMPT, temperature=0)],
    "HuggingFaceEndpoint by default": refusal,
}
print(json.dumps(answers))
