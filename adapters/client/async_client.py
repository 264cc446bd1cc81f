"""The asynchronous client: the methods of the blocking one, for an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from rootstock.adapters.client import flows, routes
from rootstock.adapters.client.batches import DEFAULT_BATCH, BatchPlan, in_order_async
from rootstock.adapters.client.composition.weighted_adapters import Model
from rootstock.adapters.client.errors import Refused
from rootstock.adapters.client.exchange import HttpCall
from rootstock.adapters.client.history import event_flows
from rootstock.adapters.client.history.event_flows import EventEntry
from rootstock.adapters.client.history.version_diff import VersionDiff
from rootstock.adapters.client.predictions import R
from rootstock.adapters.client.progress import Report, upload_progress
from rootstock.adapters.client.records import (
    AdapterEntry,
    AdapterRecord,
    AliasRecord,
    BundleFile,
    DeletedRecord,
    KeyEntry,
    NewKeyEntry,
    PublishedRecord,
    QuotaEntry,
    RankedText,
    SharingRecord,
    SplitRecord,
    TextRecord,
    UndeletedRecord,
)
from rootstock.adapters.client.rollout import rule_routes, split_routes
from rootstock.adapters.client.rollout.rule_routes import RuleRecord, ShadowRecord
from rootstock.adapters.client.routes import Document, GivenInput, Messages
from rootstock.adapters.client.routing.routed_results import RoutedResults
from rootstock.adapters.client.tenancy import key_routes
from rootstock.adapters.client.text_stream import AsyncTextPieces
from rootstock.adapters.client.transport import AsyncTransport
from rootstock.adapters.client.upload import PlainAdapter, UploadSource, opened_upload
from rootstock.adapters.reference import LIVE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Inside Client, `list` is the method.
list_ = list
Input = TypeVar("Input", bound=GivenInput)


class AsyncClient(AsyncTransport):
    """An asynchronous client of one server; `Client` describes the arguments, results and errors of each method.

    `predict_many` and `list` are asynchronous iterators. One event loop may use it.
    """

    @overload
    async def predict(self, model: Model, inputs: GivenInput, result: type[R], **parameters: Any) -> R: ...

    @overload
    async def predict(
        self, model: Model, inputs: list_[Input] | tuple[Input, ...], result: type[R], **parameters: Any
    ) -> list_[R]: ...

    @overload
    async def predict(self, model: Model, inputs: GivenInput, result: None = None, **parameters: Any) -> Any: ...

    @overload
    async def predict(
        self, model: Model, inputs: list_[Input] | tuple[Input, ...], result: None = None, **parameters: Any
    ) -> list_[Any]: ...

    async def predict(self, model: Model, inputs: Any, result: Any = None, **parameters: Any) -> Any:
        """Return the result for one input, or a list of results for a list of inputs."""
        results = await self._ask(routes.predict(model, inputs, result, parameters))
        return results if isinstance(inputs, list_ | tuple) else results[0]

    @overload
    def predict_many(
        self,
        model: Model,
        inputs: Iterable[GivenInput],
        result: type[R],
        *,
        batch: int = DEFAULT_BATCH,
        concurrency: int = 4,
        progress: bool | Report = False,
        **parameters: Any,
    ) -> AsyncIterator[R]: ...

    @overload
    def predict_many(
        self,
        model: Model,
        inputs: Iterable[GivenInput],
        result: None = None,
        *,
        batch: int = DEFAULT_BATCH,
        concurrency: int = 4,
        progress: bool | Report = False,
        **parameters: Any,
    ) -> AsyncIterator[Any]: ...

    def predict_many(
        self,
        model: Model,
        inputs: Iterable[GivenInput],
        result: Any = None,
        *,
        batch: int = DEFAULT_BATCH,
        concurrency: int = 4,
        progress: bool | Report = False,
        **parameters: Any,
    ) -> AsyncIterator[Any]:
        """Yield the results for any number of inputs, in their order."""
        plan = BatchPlan(inputs, batch, concurrency, progress)

        def call_of(part: Sequence[GivenInput]) -> HttpCall[list_[Any]]:
            return routes.predict(model, part, result, parameters)

        async def ask(part: Sequence[GivenInput]) -> list_[Any]:
            return await self._run(flows.whole(self._policy, call_of, part))

        async def results() -> AsyncIterator[Any]:
            most = await self._ask(routes.most_inputs())
            async with aclosing(in_order_async(ask, plan, most)) as ordered:
                async for one in ordered:
                    yield one

        return results()

    async def fan_out(
        self, models: Sequence[str], inputs: GivenInput | Sequence[GivenInput], **parameters: Any
    ) -> list_[list_[Any] | Refused]:
        """Return each model's results for the same inputs, or the error of a model that could not answer."""
        return await self._ask(routes.fan_out(models, inputs, parameters))

    async def route(
        self,
        inputs: GivenInput | Sequence[GivenInput],
        *,
        selector: str | None = None,
        threshold: float | None = None,
        fallback: str | None = None,
        **parameters: Any,
    ) -> RoutedResults:
        """Let a selector adapter, the server's router by default, choose the model that answers each input.

        A text whose score is below `threshold`, or whose label is `none`, is answered by `fallback`. One that
        nothing can answer has its error in its route.
        """
        return await self._ask(routes.route(inputs, selector, threshold, fallback, parameters))

    async def embed(
        self, model: Model, inputs: GivenInput | Sequence[GivenInput], **options: Any
    ) -> NDArray[np.float32]:
        """Return the vector of one input, or the matrix of up to 2,048 inputs with a row for each."""
        return await self._ask(routes.embed(model, inputs, options))

    async def rerank(
        self, model: str, query: str, documents: Sequence[str | Mapping[str, Any]], **options: Any
    ) -> list_[RankedText]:
        """Return the documents by how well they answer the query, best first."""
        return await self._ask(routes.rerank(model, query, documents, options))

    @overload
    async def chat(
        self,
        model: Model,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        stream: Literal[False] = False,
        **options: Any,
    ) -> TextRecord: ...

    @overload
    async def chat(
        self, model: Model, messages: Messages, *, stream: Literal[True], **options: Any
    ) -> AsyncTextPieces: ...

    async def chat(
        self, model: Model, messages: Messages, *, stream: bool = False, **options: Any
    ) -> TextRecord | AsyncTextPieces:
        """Return the answer to a chat or one message of the user; with `stream` an iterator over its pieces."""
        return await self._generate(routes.chat(model, messages, options), stream)

    @overload
    async def complete(
        self, model: Model, prompt: str, *, stream: Literal[False] = False, **options: Any
    ) -> TextRecord: ...

    @overload
    async def complete(
        self, model: Model, prompt: str, *, stream: Literal[True], **options: Any
    ) -> AsyncTextPieces: ...

    async def complete(
        self, model: Model, prompt: str, *, stream: bool = False, **options: Any
    ) -> TextRecord | AsyncTextPieces:
        """Return the continuation of a text; with `stream` an iterator over its pieces."""
        return await self._generate(routes.complete(model, prompt, options), stream)

    async def push(
        self,
        source: UploadSource,
        name: str,
        *,
        activate: bool = True,
        task: str | None = None,
        labels: Sequence[str] | None = None,
        problem_type: str | None = None,
        max_length: int | None = None,
        foundation: str | None = None,
        progress: bool | Report = False,
        sign_key: str | Path | None = None,
    ) -> PublishedRecord:
        """Publish an adapter as the next version of `name`; `activate` points `live` at it."""
        plain = PlainAdapter(task, labels, problem_type, max_length, foundation)
        with (
            upload_progress(progress) as report,
            opened_upload(source, name, plain, activate, report, sign_key) as (content, ignored),
        ):
            return await self._ask(routes.push(content, ignored))

    async def publish_from(
        self,
        source: str,
        name: str,
        *,
        activate: bool = True,
        task: str | None = None,
        labels: Sequence[str] | None = None,
        problem_type: str | None = None,
        max_length: int | None = None,
        foundation: str | None = None,
    ) -> PublishedRecord:
        """Let the server fetch an adapter and publish it as the next version of `name`, as `push` does."""
        plain = PlainAdapter(task, labels, problem_type, max_length, foundation)
        return await self._ask(routes.publish_from(source, name, plain.document(), activate))

    async def pull(self, reference: str, to: str | Path = ".") -> BundleFile:
        """Write the bundle of a version to the file `to`, or to NAME-VERSION.zip in the folder `to`."""
        return BundleFile.write(*await self._run(flows.pulled(self._policy, reference)), Path(to))

    async def promote(self, name: str, version: int, alias: str = LIVE) -> AliasRecord:
        """Point an alias at a version. Requests that the server admits afterwards use it."""
        return await self._ask(routes.promote(name, version, alias))

    async def rollback(self, name: str) -> AliasRecord:
        """Move `live` back to the version that it pointed at before."""
        return await self._ask(routes.rollback(name))

    async def split(self, name: str, candidates: Mapping[int, float], alias: str = LIVE) -> SplitRecord:
        """Let versions answer these percents of an alias's requests, and the alias's own version the rest.

        It replaces the split that the alias has. A move of the alias ends the split.
        """
        return await self._ask(split_routes.set_split(name, candidates, alias))

    async def end_split(self, name: str, alias: str = LIVE) -> AliasRecord:
        """End the split of an alias, which then means one version again."""
        return await self._ask(split_routes.end_split(name, alias))

    async def set_shadow(self, name: str, version: int, percent: float) -> ShadowRecord:
        """Let a version compute a share of live's requests too. Nobody gets its answers."""
        return await self._ask(rule_routes.set_shadow(name, version, percent))

    async def end_shadow(self, name: str) -> ShadowRecord:
        """End the shadow of an adapter."""
        return await self._ask(rule_routes.end_shadow(name))

    async def set_rule(self, name: str, **limits: float | None) -> RuleRecord:
        """Set the limits that new versions of an adapter have to keep, in place of those that it has.

        `limits` are `max_error_rate`, `max_disagreement` and `max_p95_ratio`, at least one of them, and
        `window_seconds` and `min_requests`. A version that breaks one is taken back.
        """
        return await self._ask(rule_routes.set_rule(name, limits))

    async def rule(self, name: str) -> RuleRecord:
        """Return the rollback rule of an adapter."""
        return await self._ask(rule_routes.rule(name))

    async def remove_rule(self, name: str) -> RuleRecord:
        """Remove the rollback rule of an adapter."""
        return await self._ask(rule_routes.remove_rule(name))

    async def share(self, name: str, shared: bool = True) -> SharingRecord:
        """Let all tenants use an adapter, or with `shared=False` its own tenant alone."""
        return await self._ask(routes.share(name, shared))

    async def delete(
        self, name: str, version: int | None = None, *, force: bool = False, purge: bool = False
    ) -> None:
        """Delete a version, or the whole adapter if `version` is None."""
        await self._ask(routes.delete(name, version, force, purge))

    async def deleted(self, name: str) -> list_[DeletedRecord]:
        """Return the deleted versions of an adapter that can come back, oldest first."""
        return await self._ask(routes.deleted(name))

    async def undelete(self, name: str, version: int | None = None) -> UndeletedRecord:
        """Bring a deleted version back with its free aliases, or the whole adapter if `version` is None."""
        return await self._ask(routes.undelete(name, version))

    async def list(self, search: str | None = None, limit: int = 100) -> AsyncIterator[AdapterEntry]:
        """Yield every adapter in order of name, or those whose name contains `search`."""
        after: str | None = None
        while True:
            page = await self._ask(routes.page(limit, after, search))
            for adapter in page.adapters:
                yield adapter
            after = page.next
            if after is None:
                return

    async def show(self, name: str) -> AdapterRecord:
        """Return an adapter with its aliases and versions."""
        return await self._ask(routes.show(name))

    async def describe(self, name: str, version: int) -> Document:
        """Return what the server knows of a version: its digest, its task, and its `description` with labels."""
        return await self._ask(routes.describe(name, version))

    async def history(self, name: str | None = None, limit: int = 100) -> list_[EventEntry]:
        """Return the newest events, at most `limit`, of one adapter or of all; newest first."""
        return await self._run(event_flows.history(self._policy, name, limit))

    async def diff(self, name: str, before: int, after: int) -> VersionDiff:
        """Return how the version `after` of an adapter differs from the version `before`."""
        return await self._run(event_flows.diff(self._policy, name, before, after))

    async def resolve(self, reference: str) -> tuple[str, int]:
        """Return the name and version that a reference means now."""
        return await self._run(flows.resolved(self._policy, reference))

    # The time is divided between several calls, which asyncio.timeout cannot do.
    async def wait(self, model: str | None = None, timeout: float = 60) -> None:  # noqa: ASYNC109
        """Return once the server admits requests, and serves `model` if one is given; raise TimedOut if late."""
        await self._run(flows.until_ready(model, timeout, self._policy.clock))

    async def limits(self) -> Document:
        """Return the server's limits: tasks, ranks, sizes, and the foundations with their fingerprints."""
        return await self._ask(routes.limits())

    async def models(self) -> Document:
        """Return the foundations and every adapter, in OpenAI's shape."""
        return await self._ask(routes.document_at("/v1/models"))

    async def model(self, reference: str) -> Document:
        """Return what the server lists of the model that a reference means: its task and its foundation."""
        return await self._ask(routes.model(reference))

    async def metrics(self) -> str:
        """Return the server's metrics in Prometheus's text format."""
        return await self._ask(routes.metrics())

    async def create_key(
        self,
        role: str,
        *,
        tenant: str | None = None,
        label: str = "",
        expires_at: datetime | None = None,
        **limits: int | None,
    ) -> NewKeyEntry:
        """Make a key of a tenant, by default of the caller's own. The result holds its text, shown only once.

        `role` is `predict`, `publish` or `admin`. `limits` are `requests_per_minute`, `tokens_per_minute` and
        `stored_mb`.
        """
        return await self._ask(key_routes.create_key(tenant, role, label, expires_at, limits))

    async def keys(self, tenant: str | None = None) -> list_[KeyEntry]:
        """Return all keys that the caller administers, or those of one tenant, oldest first."""
        return await self._ask(key_routes.list_keys(tenant))

    async def rotate_key(
        self, id: str, *, overlap_seconds: int = 3600, expires_at: datetime | None = None
    ) -> NewKeyEntry:
        """Make a key with the properties of an old one, which stays good for `overlap_seconds`."""
        return await self._ask(key_routes.rotate_key(id, overlap_seconds, expires_at))

    async def revoke_key(self, id: str) -> None:
        """Revoke a key at once."""
        await self._ask(key_routes.revoke_key(id))

    async def tenant_quota(self, tenant: str) -> QuotaEntry:
        """Return the limits of a tenant and what it stores."""
        return await self._ask(key_routes.tenant_quota(tenant))

    async def set_tenant_quota(self, tenant: str, **limits: int | None) -> QuotaEntry:
        """Set the limits of a tenant; one that is left out does not exist afterwards."""
        return await self._ask(key_routes.set_tenant_quota(tenant, limits))

    async def _generate(self, call: HttpCall[TextRecord], stream: bool) -> TextRecord | AsyncTextPieces:
        if not stream:
            return await self._ask(call)
        return await self._ask(
            routes.streamed(call, partial(AsyncTextPieces, url=self._url, timeout=self._policy.timeout))
        )
