"""vLLM's routes that load and unload an adapter: they publish it from a path of the server, and delete it."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import StrictBool, StrictStr

from rootstock.adapters.bundle import PlainFields
from rootstock.adapters.errors import AdapterError, UnknownAdapter
from rootstock.service.api.body import BodyRoute
from rootstock.service.api.document.error_codes import CHANGE, PUBLISHING, raises
from rootstock.service.api.server import Server, principal_of, server_of
from rootstock.service.api.strict import Strict

router = APIRouter(route_class=BodyRoute)


class LoadedAdapterExists(AdapterError):
    """The name has an adapter already, and the request does not ask to load in place."""

    code = "adapter_exists"


class LoadLoraBody(Strict):
    """The name of an adapter and its path in the folder that the server allows.

    With `load_inplace`, a name that exists gets a new version.
    """

    lora_name: StrictStr
    lora_path: StrictStr
    load_inplace: StrictBool = False


class UnloadLoraBody(Strict):
    """The name of an adapter to delete with all its versions. `lora_int_id` is vLLM's own number, not read."""

    lora_name: StrictStr
    lora_int_id: int | None = None


@router.post(
    "/v1/load_lora_adapter",
    response_class=PlainTextResponse,
    responses={202: {"description": "The adapter is published, and awaits approval before requests reach it."}},
    openapi_extra=raises(*PUBLISHING, "path_not_allowed", "path_not_found", "adapter_exists"),
)
async def load_lora_adapter(body: LoadLoraBody, request: Request, response: Response) -> str:
    """Verify the adapter at a path of the server and publish it as the next version of its name."""
    server = server_of(request)
    path = await asyncio.to_thread(server.adapter_folder.find, body.lora_path)
    if not body.load_inplace:
        await asyncio.to_thread(_check_free, server, body.lora_name)

    async def read() -> bytes:
        return await asyncio.to_thread(server.adapter_folder.read, path)

    check_room = partial(server.quotas.check_stored, principal_of(request))
    may_activate = server.approval.activation_by(principal_of(request))
    done = await server.publisher.publish(
        read, body.lora_name, PlainFields(), True, check_room, may_activate=may_activate
    )
    server.pins.moved(f"{done.published.name}@{done.published.version}")
    if done.awaits_approval:
        response.status_code = 202
        return f"LoRA adapter '{done.published.name}' awaits approval as version {done.published.version}."
    return f"Success: LoRA adapter '{done.published.name}' added successfully."


@router.post("/v1/unload_lora_adapter", response_class=PlainTextResponse, openapi_extra=raises(*CHANGE))
async def unload_lora_adapter(body: UnloadLoraBody, request: Request) -> str:
    """Delete an adapter with all its versions, as DELETE /v1/adapters/{name} does."""
    server = server_of(request)
    await server.deletions.delete(body.lora_name, None, force=True)
    server.pins.moved()
    return f"Success: LoRA adapter '{body.lora_name}' removed successfully."


def _check_free(server: Server, name: str) -> None:
    try:
        found = server.registry.show(name).name
    except UnknownAdapter:
        return
    if found != name:  # Another tenant shares an adapter of that name, and this one can still have its own.
        return
    raise LoadedAdapterExists(
        f"there is an adapter {name!r} already; set load_inplace to true to publish a new version, or unload it "
        "first",
        param="lora_name",
    )
