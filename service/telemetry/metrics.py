"""The server's metrics for Prometheus. Names begin with rootstock_, and the number of label values is bounded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import get_args

# BentoML switches on multiprocess mode for its workers. In it, prometheus_client keeps files on disk and cannot
# remove a series. There is one worker process, so the mode is switched off before the import.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from rootstock.adapters.registry.rollout_records import ShadowResult, Stage
from rootstock.service.engine.core.answer import RequestRecord
from rootstock.service.engine.core.observer import BatchStats, GenerationStats, Observer, Tier
from rootstock.service.engine.core.work import PRIORITIES
from rootstock.service.engine.encode.engine import Engine
from rootstock.service.engine.generate.engine import GenerationEngine
from rootstock.service.telemetry.traffic import OTHER, TrafficRanking

# The creation time of each series would double the page, and nobody uses it.
disable_created_metrics()  # type: ignore[no-untyped-call]

# The number of adapters with their own series; each has about eighty series.
NAMED_ADAPTERS = 20
# The metrics that name adapters, and those that count them or their uploads, loads and evictions.
_OF_OPERATOR = {
    "latency_seconds",
    "adapter_tokens",
    "adapter_compute_seconds",
    "composed_answers",
    "generated_tokens",
    "prompt_tokens",
    "reused_prompt_tokens",
    "batch_adapters",
    "slots_used",
    "cache_adapters",
    "cache_bytes",
    "loads",
    "load_seconds",
    "evictions",
    "verifications",
    "replaced_candidates",
    "shadow_requests",
    "rollbacks",
}
STAGES = ("load", "tokenize", "queue", "inference", "total")
TIERS: tuple[Tier, ...] = ("memory", "slot")
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_RATIOS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75)
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
# A warm adapter loads in almost no time; the extra bucket separates that from a short stage.
_STAGE_SECONDS = (0.001, *_SECONDS)


class _Adapter:
    """The series of one adapter and one task, looked up once."""

    def __init__(self, metrics: Metrics, label: str, task: str) -> None:
        stages = {stage: metrics.latency.labels(label, task, stage) for stage in STAGES}
        self._load, self._tokenize, self._queue, self._inference, self._total = stages.values()
        self._tokens = metrics.adapter_tokens.labels(label, task)
        self._compute = metrics.adapter_compute.labels(label, task)

    def count(self, record: RequestRecord) -> None:
        self._load.observe(record.load)
        self._tokenize.observe(record.tokenize)
        self._queue.observe(record.queue)
        self._inference.observe(record.inference)
        self._total.observe(record.total)
        self._tokens.inc(record.request.progress.cost)
        self._compute.inc(record.request.progress.compute)


class Metrics(Observer):
    """The metrics of one server, as an observer of its engines.

    Those that name adapters or count them are the operator's: another tenant's adapters do not exist for anyone
    else. An adapter's label is its name in the registry.

    Call `answered`, `served`, `rank` and `forget` from the event loop.
    """

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.of_operator = CollectorRegistry()
        ProcessCollector("rootstock", registry=self.registry)
        self._traffic = TrafficRanking(NAMED_ADAPTERS)
        self._adapters: dict[tuple[str, str], _Adapter] = {}
        self._routes: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._make_http()
        self._make_rollout()
        self._make_adapters()
        self._make_batches()
        self._make_tiers()
        self._make_generation()
        self._make_gauges()

    def _make_http(self) -> None:
        self._requests = self._counter("requests", "HTTP requests by route and status.", "route", "status")
        self._latency = self._histogram("request_seconds", "Time to answer, by route.", _SECONDS, "route")
        self._refused = self._counter("refused", "Calls that were not admitted, by the error's code.", "reason")
        self._failures = self._counter(
            "failures", "Admitted references that failed, by the error's code.", "code"
        )
        self._verifications = self._counter(
            "verifications", "Uploads by result: passed, or the check that refused them.", "result"
        )
        self._replaced = self._counter(
            "replaced_candidates",
            "Requests of a split that the alias's own version answered for lack of another.",
        )
        # Create these series now: an alert on an increase misses a series that begins with its first event.
        for reason in ("overloaded", "request_too_large", "draining"):
            self._refused.labels(reason)
        for code in ("runner_fault", "deadline_exceeded"):
            self._failures.labels(code)
        for result in ("passed", "golden"):
            self._verifications.labels(result)

    def _make_rollout(self) -> None:
        shadows = self._counter(
            "shadow_requests",
            "Requests that another version computed too, by result of the comparison.",
            "result",
        )
        rollbacks = self._counter(
            "rollbacks", "Versions that a rollback rule took back, by stage: live, split or shadow.", "stage"
        )
        self._shadow_requests = {result: shadows.labels(result) for result in get_args(ShadowResult)}
        self._rollbacks = {stage: rollbacks.labels(stage) for stage in get_args(Stage)}

    def _make_adapters(self) -> None:
        of = "adapter", "task"
        self.latency = self._histogram(
            "latency_seconds", "Time of an answer, by stage.", _STAGE_SECONDS, *of, "stage"
        )
        self.adapter_tokens = self._counter("adapter_tokens", "Tokens of answers, without padding.", *of)
        self.adapter_compute = self._counter(
            "adapter_compute_seconds", "Seconds of batches in the runner, shared by tokens.", *of
        )
        self._composed: set[str] = set()
        self._composed_answers = self._counter(
            "composed_answers", "Answers of compositions that an adapter was a part of.", "adapter"
        )

    def _make_batches(self) -> None:
        self._rows = self._histogram("batch_rows", "Inputs in a batch.", _SIZES)
        self._distinct = self._histogram("batch_adapters", "Distinct adapters in a batch.", _SIZES)
        self._batch_tokens = self._histogram("batch_tokens", "Tokens in a batch, without padding.", _TOKENS)
        self._ratio = self._histogram("batch_padding_ratio", "Share of a batch that is padding.", _RATIOS)
        self._batch_seconds = self._histogram("batch_seconds", "Time of a batch in the runner.", _SECONDS)
        self._padding = self._counter("padding_tokens", "Padding tokens that were computed.")
        waits = self._histogram(
            "queue_seconds",
            "Time from a request's arrival to its first batch, by priority.",
            _SECONDS,
            "priority",
        )
        self._waits = {priority: waits.labels(priority) for priority in PRIORITIES}

    def _make_tiers(self) -> None:
        loads = self._counter("loads", "Loads of adapters into a tier, by result.", "tier", "result")
        seconds = self._histogram("load_seconds", "Time to load an adapter into a tier.", _STAGE_SECONDS, "tier")
        evictions = self._counter("evictions", "Adapters that left a tier.", "tier")
        self._loads = {(t, ok): loads.labels(t, "ok" if ok else "failed") for t in TIERS for ok in (True, False)}
        self._load_seconds = {tier: seconds.labels(tier) for tier in TIERS}
        self._evictions = {tier: evictions.labels(tier) for tier in TIERS}

    def _make_generation(self) -> None:
        self._generating: set[str] = set()
        self._generated_tokens = self._counter("generated_tokens", "Tokens of generated answers.", "adapter")
        self._prompt_tokens = self._counter(
            "prompt_tokens", "Tokens of prompts for generated answers.", "adapter"
        )
        self._reused_tokens = self._counter(
            "reused_prompt_tokens", "Tokens of prompts that were copied from another sequence.", "adapter"
        )
        self._first_token = self._histogram(
            "first_token_seconds", "Time from a request's arrival to the first token of its answer.", _SECONDS
        )
        self._token_seconds = self._histogram(
            "token_seconds", "Time of each further token of an answer, on average over the answer.", _SECONDS
        )
        self._sequences = self._engine_gauge("sequences", "Sequences that wait or run.")
        self._running = self._engine_gauge("sequences_running", "Sequences that run.")
        self._kv_tokens = self._engine_gauge("kv_tokens", "Room taken for keys and values, in tokens.")
        self._kv_kept = self._engine_gauge(
            "kv_tokens_kept", "Room taken for prefixes that are kept for later prompts, in tokens."
        )
        self._kv_limit = self._engine_gauge("kv_tokens_limit", "Largest room for keys and values, in tokens.")

    def _make_gauges(self) -> None:
        self.ready = self._gauge("ready", "1 while requests are admitted.")
        self._queue_items = self._engine_gauge("queue_items", "Inputs in the queue.")
        self._queue_tokens = self._engine_gauge("queue_tokens", "Tokens in the queue.")
        self._queue_items_limit = self._engine_gauge(
            "queue_items_limit", "Largest number of inputs in the queue."
        )
        self._queue_tokens_limit = self._engine_gauge(
            "queue_tokens_limit", "Largest number of tokens in the queue."
        )
        self._slots_used = self._engine_gauge("slots_used", "Adapters in slots.")
        self._slots_limit = self._engine_gauge("slots_limit", "Slots that adapters may use.")
        self._cache_adapters = self._engine_gauge("cache_adapters", "Adapters in host memory.")
        self._cache_bytes = self._engine_gauge("cache_bytes", "Bytes of the adapters in host memory.")
        self._cache_limit = self._engine_gauge(
            "cache_bytes_limit", "Largest number of bytes of the adapters in host memory."
        )
        self._info = Info(
            "rootstock_server", "The foundations and their runners.", ["name"], registry=self.registry
        )

    def watch(self, name: str, engines: Sequence[Engine | GenerationEngine]) -> None:
        """Report the sums of a foundation's engines in the gauges from now on; `name` is its reference."""
        admissions = [engine.admission for engine in engines]
        self._queue_items.labels(name).set_function(lambda: sum(one.waiting()[0] for one in admissions))
        self._queue_tokens.labels(name).set_function(lambda: sum(one.waiting()[1] for one in admissions))
        self._queue_items_limit.labels(name).set(sum(one.capacity.items for one in admissions))
        self._queue_tokens_limit.labels(name).set(sum(one.capacity.tokens for one in admissions))
        self._slots_used.labels(name).set_function(lambda: sum(len(one.slots.resident()) for one in engines))
        # One slot of an engine holds the foundation and one is for verification.
        self._slots_limit.labels(name).set(sum(one.runner.slots - 2 for one in engines))
        self._cache_adapters.labels(name).set_function(lambda: sum(len(one.cache) for one in engines))
        self._cache_bytes.labels(name).set_function(lambda: sum(one.cache.nbytes for one in engines))
        self._cache_limit.labels(name).set(sum(one.limits.cache_bytes for one in engines))
        for engine in engines:
            if isinstance(engine, GenerationEngine):
                self._watch_sequences(name, engine)
        engine = engines[0]
        self._info.labels(name).info(
            {
                "foundation": engine.spec.name,
                "fingerprint": engine.spec.fingerprint,
                "runner": engine.runner.name,
                "precision": engine.runner.precision,
            }
        )

    def _watch_sequences(self, name: str, engine: GenerationEngine) -> None:
        scheduler, kv = engine.worker.scheduler, engine.runner.cache
        self._sequences.labels(name).set_function(lambda: len(scheduler))
        self._running.labels(name).set_function(lambda: len(scheduler.lanes))
        self._kv_tokens.labels(name).set_function(lambda: kv.used)
        self._kv_kept.labels(name).set_function(lambda: kv.kept)
        self._kv_limit.labels(name).set(kv.capacity)

    def batch(self, stats: BatchStats) -> None:
        """Count a batch that was run."""
        self._rows.observe(stats.rows)
        self._distinct.observe(stats.adapters)
        self._batch_seconds.observe(stats.seconds)
        self._batch_tokens.observe(stats.tokens)
        if stats.padded:
            self._ratio.observe(1 - stats.tokens / stats.padded)
        self._padding.inc(stats.padded - stats.tokens)
        for priority, seconds in stats.waits:
            self._waits[priority].observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a call that was not admitted; `reason` is the error's code."""
        self._refused.labels(reason).inc()

    def served(self, served: RequestRecord) -> None:
        """Count a reference that was answered or failed."""
        if served.error is not None:
            self._failures.labels(served.error.code).inc()
            return
        key = self._traffic.label(served.resolved.name), served.request.adapter.task
        adapter = self._adapters.get(key)
        if adapter is None:
            adapter = self._adapters[key] = _Adapter(self, *key)
        adapter.count(served)
        self._count_parts([part.name for part in served.resolved.parts])

    def generated(self, stats: GenerationStats) -> None:
        """Count a call for text that has ended."""
        name = self._traffic.label(stats.name)
        self._generating.add(name)
        self._prompt_tokens.labels(name).inc(stats.prompt_tokens)
        self._reused_tokens.labels(name).inc(stats.reused_tokens)
        self._generated_tokens.labels(name).inc(stats.tokens)
        if stats.error is not None:
            self._failures.labels(stats.error).inc()
        else:
            self._count_parts(stats.parts)
        if stats.first is not None:
            self._first_token.observe(stats.first)
            if (further := stats.tokens / stats.answers - 1) > 0:
                self._token_seconds.observe((stats.total - stats.first) / further)

    def loaded(self, tier: Tier, seconds: float, ok: bool) -> None:
        """Count the load of an adapter into a tier, or the failure of one."""
        self._loads[tier, ok].inc()
        if ok:
            self._load_seconds[tier].observe(seconds)

    def evicted(self, tier: Tier) -> None:
        """Count an adapter that left a tier."""
        self._evictions[tier].inc()

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an HTTP request that was answered; `route` is the route's template, never a raw path."""
        series = self._routes.get((route, status))
        if series is None:
            series = self._requests.labels(route, str(status)), self._latency.labels(route)
            self._routes[route, status] = series
        requests, latency = series
        requests.inc()
        latency.observe(seconds)

    def verified(self, result: str) -> None:
        """Count an upload that was verified; `result` is "passed" or the check that refused it."""
        self._verifications.labels(result).inc()

    def replaced(self) -> None:
        """Count a request of a split whose candidate this server cannot serve; the alias's version answers it."""
        self._replaced.inc()

    def shadowed(self, result: ShadowResult) -> None:
        """Count a shadow of a request that has ended, or that was dropped."""
        self._shadow_requests[result].inc()

    def took_back(self, stage: Stage) -> None:
        """Count a version that a rollback rule took back."""
        self._rollbacks[stage].inc()

    def rank(self) -> None:
        """Update the choice of the adapters with their own series, and remove the series of the others."""
        for name in self._traffic.rank():
            self._remove(name)

    def forget(self, name: str) -> None:
        """Remove the series of a deleted adapter."""
        if self._traffic.forget(name):
            self._remove(name)

    def render(self, to_operator: bool) -> bytes:
        """Return the metrics in Prometheus's text format. Any thread may call it."""
        page = generate_latest(self.registry)
        return page + generate_latest(self.of_operator) if to_operator else page

    def _count_parts(self, names: Sequence[str]) -> None:
        """Count the parts of a composition. All compositions share one label for their own figures."""
        for name in {self._traffic.label(name) for name in dict.fromkeys(names)}:
            self._composed.add(name)
            self._composed_answers.labels(name).inc()

    def _remove(self, name: str) -> None:
        if name in self._composed - {OTHER}:
            self._composed.discard(name)
            self._composed_answers.remove(name)
        if name in self._generating - {OTHER}:
            self._generating.discard(name)
            self._generated_tokens.remove(name)
            self._prompt_tokens.remove(name)
            self._reused_tokens.remove(name)
        for label, task in [key for key in self._adapters if key[0] == name != OTHER]:
            del self._adapters[label, task]
            for stage in STAGES:
                self.latency.remove(label, task, stage)
            self.adapter_tokens.remove(label, task)
            self.adapter_compute.remove(label, task)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"rootstock_{name}", help_text, labels, registry=self._place(name))

    def _engine_gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(f"rootstock_{name}", help_text, ["foundation"], registry=self._place(name))

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(f"rootstock_{name}", help_text, registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        registry = self._place(name)
        return Histogram(f"rootstock_{name}", help_text, labels, buckets=buckets, registry=registry)

    def _place(self, name: str) -> CollectorRegistry:
        return self.of_operator if name in _OF_OPERATOR else self.registry
