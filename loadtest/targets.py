"""The target of each benchmark, in one place: the benchmark judges by it, the catalogue prints it."""

from __future__ import annotations

# Ratios of speed or throughput, at least.
PLAIN_EXPORT = 1.0
# By tokens a row.
ADAPTERS_VS_BARE = {32: 0.95, 16: 0.90}
# A composition is an adapter of as many ranks.
COMPOSITIONS = 0.97
VS_PEFT = 2.0
FAN_OUT = 12.0
TOP_LAYERS_FAN_OUT = 4.0
IMAGES_VS_BARE = 0.95
IMAGES_VS_PEFT = 1.5
IMAGES_FAN_OUT = 12.0
TOP_LAYERS_SHARED = 2.2
VS_SET_ADAPTER = 6.0
# By server.
THROUGHPUT = {"bentoml": 0.5, "uvicorn": 0.6}
VS_INFINITY = 1.5
VS_INFINITY_INT8 = 2.5
RAMP_GOODPUT = 0.9
# An equal share of the cores is a half, and changing between the two costs something.
MODALITY_SHARE = 0.4
# By the rank of the adapters: 16 on all linear layers, 8 on query and value.
GENERATION_VS_NONE = {16: 0.75, 8: 0.93}
VS_SET_ADAPTER_GENERATION = 4.0
VS_VLLM = 3.0
# By the number of sequences at once.
VS_LLAMA_CPP = {16: 1.0, 1: 0.8}

# At most: ratios, milliseconds, seconds, MB (a million bytes), MB an hour, answers.
VS_INFINITY_P50 = 0.4
COLD_DISK_MS = 25.0
COLD_MEMORY_MS = 2.0
LOOK_UP_MS = 1.0
START_S = 3.0
START_MB = 400.0
REQUEST_CPU_MS = 1.0
CHURN_MS = 10.0
NEIGHBOUR_P99 = 2.0
SOAK_MB_HOUR = 0.0
FAULTS = 0.0

# A server with many adapters may hold more memory than an empty one: its cache's budget and this much.
CACHE_MIB = 128
SPARE_MB = 50.0
CACHE_MB = CACHE_MIB * 2**20 / 1e6
REGISTRY_MB = CACHE_MB + SPARE_MB
# The target under churn is for the p99 less this many times the quiet p99.
CHURN_RATIO = 1.5
# An accepted request may wait this many times the time of a full queue.
RAMP_QUEUES = 2.0
# The error of the simulation of a cluster, in percent, and the loads with affinity ÷ those of random routing.
SIMULATION_ERROR = 15.0
AFFINITY_LOADS = 0.25
