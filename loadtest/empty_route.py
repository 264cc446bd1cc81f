"""What a route costs that does nothing: FastAPI alone (`uvicorn loadtest.empty_route:app`), or within BentoML
(`bentoml serve loadtest.empty_route:EmptyRoute`)."""

from __future__ import annotations

import bentoml
from fastapi import FastAPI
from fastapi.responses import Response

app = FastAPI()


@app.get("/readyz")
async def readyz() -> Response:
    """200."""
    return Response()


@app.post("/v1/predict")
async def predict() -> Response:
    """An empty object; the body is not read."""
    return Response(b"{}", media_type="application/json")


@bentoml.service(name="empty-route", workers=1, metrics={"enabled": False})
@bentoml.asgi_app(app)
class EmptyRoute:
    """The app, mounted as BentoML mounts one."""
