"""The OpenAPI document beyond what FastAPI writes: tags, examples, errors and keys of every route."""
