"""The examples that end the help of each `rootstock train` command."""

from __future__ import annotations

from rootstock.adapters.cli.options import examples

_EXAMPLES = {
    "run": (
        "rootstock train run intents.csv",
        "rootstock train run training/recipes/support-intents.yaml",
        "rootstock train run my.yaml training.seed=3 --output-dir runs/try-2 --json > summary.json",
        "rootstock train run my.yaml --push http://127.0.0.1:3000",
        "rootstock train run training/recipes/generation/gardener.yaml generation.rows=50",
    ),
    "init": (
        "rootstock train init intents.csv -o intents.yaml",
        "rootstock train init mails.csv data.text_column=body data.label_column=folder",
        "rootstock train init my.yaml",
        "rootstock train init writer.yaml --task-type CAUSAL_LM",
    ),
    "validate": (
        "rootstock train validate training/recipes/entities.yaml",
        "rootstock train validate my.yaml --server http://127.0.0.1:3000",
    ),
    "schema": ("rootstock train schema > recipe.schema.json",),
    "audit": (
        "rootstock train audit my.yaml",
        "rootstock train audit my.yaml --no-noise --strict",
    ),
    "rank-base": ("rootstock train rank-base my.yaml --base default --base ./my-model",),
    "suggest": ("rootstock train suggest runs/intents/intents.zip more.csv --count 50 --json",),
    "evaluate": (
        "rootstock train evaluate runs/intents/intents.zip test.csv",
        "rootstock train evaluate intents@3 test.csv --server http://127.0.0.1:3000",
        "rootstock train evaluate runs/writer/writer.zip test.csv --recipe writer.yaml --foundation chat",
    ),
    "compare": ("rootstock train compare old.zip new.zip test.csv",),
    "explain": ('rootstock train explain runs/intents/intents.zip "where is my parcel"',),
    "export": ("rootstock train export runs/intents/intents.zip intents.onnx",),
    "cv": ("rootstock train cv my.yaml --folds 10",),
    "sweep": ("rootstock train sweep my.yaml hpo.trials=30 --out best.yaml",),
    "federate": ("rootstock train federate my.yaml --clients 8 --rounds 10 --skew 0.5",),
    "study": (
        "rootstock train study hwu64.yaml emotions.yaml --rows 8 --rows 16 --out study.jsonl",
        "rootstock train study hwu64.yaml --rows 8 --setfit-python setfit-env/bin/python",
    ),
    "bench": ("rootstock train bench training/recipes/clinc150-home.yaml peft.layers_to_transform=[4,5]",),
}


def examples_of(command: str) -> str:
    """Return the epilog of a command's help."""
    return examples(*_EXAMPLES[command])
