"""Calls a server with the client of Text Generation Inference, and prints its answers as JSON."""

import json
import sys

from text_generation import Client

PROMPT = "Where is my parcel?"

client = Client(f"{sys.argv[1]}/models/tiny-chat")
whole = client.generate(PROMPT, max_new_tokens=8)
answers = {
    "Client.generate": whole.generated_text,
    "tokens": len(whole.details.tokens),
    "Client.generate_stream": [
        part.token.text for part in client.generate_stream(PROMPT, max_new_tokens=8) if not part.token.special
    ],
}
print(json.dumps(answers))
