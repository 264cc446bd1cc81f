"""Calls a server with KServe's client in versions 1 and 2 of its protocol, and prints its answers as JSON."""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

TEXTS = ["Where is my parcel?", "Ada Lovelace lived in London.", "ok"]


async def main(url: str) -> dict[str, object]:
    tensor = InferInput("text", [len(TEXTS)], "BYTES")
    tensor.set_data_from_numpy(np.array(TEXTS, dtype=object))
    old, new = (InferenceRESTClient(RESTConfig(protocol=protocol)) for protocol in ("v1", "v2"))
    answer = await new.infer(url, InferRequest("mood", [tensor]), "mood")
    labels = {one.name: one.as_numpy() for one in answer.outputs}["label"]
    try:
        await new.infer(url, InferRequest("nobody", [tensor]), "nobody")
        error = ""
    except httpx.HTTPStatusError as refused:
        error = str(refused)
    return {
        "infer": [one.decode() if isinstance(one, bytes) else one for one in labels.ravel().tolist()],
        "infer of v1": await old.infer(url, {"instances": TEXTS}, "mood"),
        "is_server_ready": await new.is_server_ready(url),
        "is_server_live": await new.is_server_live(url),
        "is_model_ready": await new.is_model_ready(url, "mood"),
        "error": error,
    }


print(json.dumps(asyncio.run(main(sys.argv[1]))))
