"""docs/compatibility.md, rendered from the matrix that the parity tests prove."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import fields

from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from rootstock.adapters.bundle.kinds.methods import CONVERTED, REFUSED
from rootstock.adapters.bundle.peft_options import (
    CONVERTED_INITS,
    CONVERTED_OPTIONS,
    PEFT_VERSION,
    PLAIN_INITS,
    REFUSED_INITS,
    REFUSED_OPTIONS,
    SERVED_OPTIONS,
)
from tests.parity.markdown_table import table
from tests.parity.matrix import (
    ALONE,
    ARCHITECTURES,
    KINDS,
    RUNNERS,
    SAME_OUTPUTS,
    TASKS,
    TOKEN_ARCHITECTURES,
    Architecture,
    Cell,
    Kind,
    gap,
)
from tests.parity.media_page import media_section
from tests.service.engine.generate.families import FAMILIES
from tests.service.engine.generate.rewriters import REWRITERS

_INTRO = """\
# Compatibility

The server accepts an adapter trained with [PEFT](https://huggingface.co/docs/peft), or a head alone. This \
page lists the tasks and the architectures of the foundation. Zip the folder that `save_pretrained` wrote and \
upload it; [the bundle format](bundle-format.md#plain-peft-folders) says what else an upload may hold. [The \
glossary](glossary.md) explains the terms.

Each ✓ is tested on every architecture, except those that its footnotes name. PEFT makes the adapter on a \
small random model of that architecture, saves it and loads it again. The server's answers must equal PEFT's \
(eager attention, fp32) within 1e-4 + 1e-4·|x|. Each adapter is tested alone, and in batches that mix all \
kinds, tasks and head sizes with the bare foundation, on {runners}.

`make compatibility` writes this page from the tests' own tables (`tests/parity/matrix.py`).
"""

_TASK_NOTE = """\
`zero-shot-classification` serves the adapters of `text-classification` and reads their logits. To upload an \
adapter for `text-ranking` or `zero-shot-classification`, name the task in the form field `task`.

For `question-answering` the tests compare with the model inside PEFT's class. The class itself \
(`PeftModelForQuestionAnswering`, peft 0.21) does not pass token types on. This matters on the architectures \
that have them (bert, electra, albert). An adapter trained through the class has seen question and context as \
one segment, but the server gives it two. Train it with `task_type=None` and `modules_to_save=["qa_outputs"]`, \
and give `task` on upload.
"""

_TOKENS_NOTE = """\
An adapter of a foundation that reads texts in one pass, or that continues a text, may change rows of the word \
embedding and add tokens. It does so by `trainable_token_indices`, by the kind `TRAINABLE_TOKENS`, or by an \
embedding that was resized or \
saved whole. Save the tokenizer into the same folder: its added tokens are then read in this adapter's texts, \
and in no others. The tokenizer must be the foundation's with tokens added. At most 4,096 rows may differ and \
1,024 tokens be added. [The bundle format](bundle-format.md#tokens) says more.

Tests compare adapters with added tokens with PEFT on the resized model, on both runners, mixed in one batch \
with each other and the bare foundation, on {architectures}. The slow tests have all but bert and xlm-roberta; \
this holds for LN tuning and changed rows in the table above, too.

A foundation that generates text also has an output layer. An adapter may change its rows, by \
`trainable_token_indices` or `modules_to_save` that name it, and answers can hold the tokens that the adapter \
adds. If the layer is tied to the embedding, it has the same rows, as in PEFT. The server refuses an adapter \
whose added tokens have no row of the output layer (check `sites`), because no answer could hold them: save it \
with `save_embedding_layers=True`. Prompts, chat templates, ends of answers and texts follow the adapter's \
tokenizer. A structured answer has the foundation's tokens alone. On each architecture of [text \
generation](#text-generation), tests compare rows that were trained alone, layers that were saved whole, and \
changed rows of the foundation's tokens with PEFT on the resized model. The logits must equal PEFT's within \
1e-4 + 1e-4·|x| in passes that mix these adapters and others, and greedy answers must have the tokens of PEFT's \
`generate`. `make test` has llama, also with a tied output layer, gemma2 and phi.
"""

_ALONE_INTRO = """\
The foundation answers these tasks without an adapter. The first one is the default; `task` in the request \
chooses the other. The server's answers must equal transformers' within the same bounds, alone and in batches \
with adapters.
"""

_ALONE_NOTE = """\
`fill-mask` needs a checkpoint with a masked-language-model head: every tensor of transformers' class except \
those that the class ties to the embeddings. A foundation that was saved without this head, such as the \
default one, answers 422. No adapter can be uploaded for `fill-mask`.
"""

_GENERATION_NOTE = """\
A foundation of one of these architectures generates text: {architectures}. It does so alone and with adapters \
of `task_type` `CAUSAL_LM`. It also serves adapters with a [head](#heads-on-a-decoder). Its tokens come from \
`tokenizer.json`, its chat template from `chat_template.jinja` or else `tokenizer_config.json`, and the tokens \
that end an answer from `generation_config.json` or else `config.json`. The server refuses a foundation that \
names no such token. A gpt2 generates if `architectures` in its `config.json` names `GPT2LMHeadModel`; any \
other gpt2 computes inputs in one pass.

The server refuses a model of another architecture by name, such as a mixture of experts (`qwen3_moe`) or a \
state-space model. When it starts, it also computes two short texts with its own passes and with transformers' \
forward. It refuses a model whose logits differ by more than 0.1 % of the largest one.

The server serves LoRA, DoRA, IA3, AdaLoRA and trained biases on the layers of the trunk, with the same \
[options](bundle-format.md#options) as for other tasks. On a small random model of each architecture, tests \
compare LoRA of several ranks, `all-linear`, `use_rslora`, DoRA and IA3 with PEFT. The logits must equal \
PEFT's within 1e-3 + 1e-3·|x|, in passes that mix all these adapters, chunks of prompts and single tokens. The \
tokens of greedy answers must equal those of PEFT's `generate`, with more adapters than slots. No test compares \
text that AdaLoRA or trained biases generate.

LN tuning, and normalisations in `modules_to_save`, are served on every architecture, those of queries and keys \
included. Tests compare them with PEFT within 1e-4 + 1e-4·|x|, in passes that mix them with LoRA.

An adapter may bring [tokens](#tokens-that-an-adapter-brings). The server refuses a LoRA of `lm_head` or \
`embed_tokens`, and `bias: all` on phi, whose output layer has a bias (check `sites`). It also refuses the kinds \
that become LoRA (check `conversion`).
"""

_HEADS_NOTE = """\
### Heads on a decoder

The same foundation serves adapters of `task_type` `SEQ_CLS`, `TOKEN_CLS` and `FEATURE_EXTRACTION`, from the \
one copy of its weights. A classifier is transformers' class, such as `LlamaForSequenceClassification`: its \
`score` reads the last token that is not the `pad_token_id` of the foundation's `config.json`. `text-ranking` \
and `zero-shot-classification` use the same class. An embedding is the last token, special ones included, \
divided by its norm, unless files of sentence-transformers say otherwise. The tokenizer turns a text into \
tokens with its default settings. So the text gets an end token only if the tokenizer adds one, as that of \
Qwen3-Embedding does. An instruction for embeddings goes into the bundle's `prefix`. Tests use a small random \
model of each architecture. Batches mix LoRA, rsLoRA, DoRA, IA3, heads alone and the bare foundation, and must \
equal PEFT within 1e-4 + 1e-4·|x|. The server does not serve `QUESTION_ANS` on a decoder.
"""

_REWRITING_NOTE = """\
A foundation of one of these architectures has an encoder and a decoder: {architectures}. \
`text2text-generation` is its only task, alone and with adapters of `task_type` `SEQ_2_SEQ_LM`. These change \
linear layers of the encoder, of the decoder or of both. Such a foundation serves no adapters with a head, and \
its answers take no structure. [http-api.md](http-api.md#an-encoderdecoder-model) says how it answers and \
which settings of its `generation_config.json` hold. The files, kinds and refusals are those of text \
generation. The tokens come from `tokenizer.json`. A folder that has only SentencePiece models, as Marian's \
often has, must be converted first.

Tests use a small random model of each architecture; for T5 with relu and with gated gelu, its output layer \
tied and not. They compare the same kinds of adapters, AdaLoRA and trained biases with PEFT. The logits must \
equal PEFT's within 1e-3 + 1e-3·|x|. The tokens of greedy answers must equal those of `generate(num_beams=1)`, \
with more adapters than slots. The architecture of a T5 sets no limit to a text. The server's limit is \
`n_positions` of its `config.json`, else 512 tokens, or less if `tokenizer_config.json` says so.
"""

_BODIES_NOTE = """\
These are the architectures of models that people embed with:

| models | architecture |
| --- | --- |
| multilingual E5, BGE-M3, XLM-V | xlm-roberta |
| GTE-ModernBERT, ModernBERT Embed | modernbert |
| mDeBERTa | deberta-v2 |
| CamemBERT | camembert |
| Nomic Embed Text 1.5 | nomic_bert |
| EuroBERT | eurobert |
| GTE multilingual, as transformers has it | gte |
| jina-embeddings-v3, as transformers has it | jina_embeddings_v3 |
| Qwen3-Embedding | qwen3, a [decoder](#heads-on-a-decoder) |
| EmbeddingGemma | gemma3_text whose tokens see each other |

Tests use small random models of each, and no published checkpoint.

A decoder computes texts in one pass, like an encoder, if its `config.json` sets \
`use_bidirectional_attention`, or `is_causal` to false. Then each token sees all others, and the model \
generates nothing. The tests have gemma3_text and qwen3 of this kind, and no other decoder.

The server refuses these with the reason and the remedy:

- files of the architecture `new` (GTE with its own code), `gemma3` (images and texts) and `embedding_gemma2` \
(several modalities);
- files that lack a tensor of the model that transformers has under their `model_type`, because \
their code comes with the checkpoint;
- rotary positions that depend on the longest text of a batch (`rope_type` `dynamic` and `longrope`);
- EmbeddingGemma's two modules `Dense`, as every `Dense`. Without `modules.json` it embeds by the mean of its \
tokens, which are not the published embeddings.
"""

_FILES_NOTE = """\
The files of sentence-transformers beside a foundation say how it embeds. The server supports the modules \
`Transformer`, `Pooling` (mean, the first or the last token) and `Normalize`, a default prompt, \
`max_seq_length`, and `do_lower_case` if `tokenizer.json` also lower-cases. With any other module or setting \
(`Dense`, another pooling or several at once, `truncate_dim`) the server does not start, and its message names \
it. Without `modules.json` a foundation embeds by the mean; one that generates text embeds by its last token, \
normalised. The same rules hold for an adapter that sentence-transformers saved: the server refuses its upload \
instead.

The server reads only `tokenizer.json` to turn text into tokens. transformers would also follow \
`tokenizer_config.json` (case, accents, Chinese characters, a space before, truncation on the left, other \
ids). If the two files disagree, the server refuses the foundation and names the key.
"""

_ARCHITECTURE_NOTE = """\
`target_modules` may name any linear layer of the trunk, or be `all-linear`. If PEFT has no default targets \
for an architecture, name them yourself; the table gives the usual ones.

By default PEFT saves the modules `classifier` and `qa_outputs`. If the table lists other modules, name all of \
them in `modules_to_save`. Otherwise a part of the head is missing and the upload is refused (check `sites`). \
With `all-linear` always name the head: PEFT may target it, and then cannot save it.
"""

_CONVERTED_NOTE = """\
PEFT can merge these into the weights and biases of the foundation's linear layers. The server computes the \
LoRA that equals the merged adapter, on upload; `rootstock adapters convert` does so beforehand. Its outputs \
must stay within 1 % of the largest output of the original; otherwise the server refuses the upload (check \
`conversion`). Every kind is tested on a small BERT; LoHa in the table above represents them. A LoRA becomes a \
plain one in the same way, if [an option](#options) states it relative to changed base weights.
"""

_OPTIONS_NOTE = """\
This table has every option of LoRA in PEFT {version}. An option at its default value is always accepted. The \
message of a refusal names the option, the reason and the remedy. [The bundle \
format](bundle-format.md#adapter_configjson) says how the others are read. A key that is not an option of \
PEFT, such as a comment, is ignored, and a warning of the upload names it. A key that a newer PEFT wrote is \
refused, because it may change the outputs.
"""
_OTHER_OPTIONS_NOTE = """\
The other kinds that are served without a conversion have the options of this table that PEFT gives them too, \
and these. An option that this page does not name for a kind is refused with it.
"""
_INITS_NOTE = """\
`init_lora_weights` may be {plain}: these leave the foundation's weights unchanged. {converted} change them in a \
way that the foundation's weights alone decide, so the server [converts](#kinds-that-become-lora) the adapter on \
upload, as PEFT computes it after loading. The result has up to twice the rank. The server refuses the others:
"""


def render() -> str:
    """The page."""
    return "\n".join(
        [
            _INTRO.format(runners=" and ".join(f"`{runner}`" for runner in RUNNERS)),
            "## Kinds and tasks\n",
            *_kinds_by_tasks(),
            _TASK_NOTE,
            "## Tokens that an adapter brings\n",
            _TOKENS_NOTE.format(architectures=", ".join(TOKEN_ARCHITECTURES)),
            "## The foundation alone\n",
            _ALONE_INTRO,
            *_tasks_alone(),
            _ALONE_NOTE,
            "## Text generation\n",
            _GENERATION_NOTE.format(architectures=", ".join(FAMILIES)),
            _HEADS_NOTE,
            "## Encoder–decoder models\n",
            _REWRITING_NOTE.format(architectures=", ".join(dict.fromkeys(one[0] for one in REWRITERS.values()))),
            media_section(),
            "## The files beside a foundation\n",
            _FILES_NOTE,
            "## Architectures\n",
            "An architecture is the `model_type` in the foundation's `config.json`. These read texts in one "
            "pass; [other sections](#text-generation) list others.\n",
            *table(
                ["architecture", "LoRA's usual targets", "`modules_to_save`"], map(_row, ARCHITECTURES.values())
            ),
            _ARCHITECTURE_NOTE,
            "### Models for embeddings\n",
            _BODIES_NOTE,
            "## Kinds that become LoRA\n",
            f"{', '.join(CONVERTED)}\n",
            _CONVERTED_NOTE,
            "## Kinds that are refused\n",
            *table(["`peft_type`", "why"], _refused()),
            "## Options\n",
            _OPTIONS_NOTE.format(version=".".join(map(str, PEFT_VERSION))),
            *table(["option of LoRA", "verdict", "why"], _options()),
            _OTHER_OPTIONS_NOTE,
            *table(["kind", "its options", "refused with it"], _options_of_others()),
            _INITS_NOTE.format(
                plain=", ".join(f"`{json.dumps(init)}`" for init in PLAIN_INITS),
                converted=" and ".join(f"`{init}`" for init in CONVERTED_INITS),
            ),
            *table(
                ["`init_lora_weights`", "why"], ([f"`{n}`", f"{why}."] for n, why in REFUSED_INITS.items())
            ),
        ]
    ).rstrip() + "\n"  # fmt: skip


def _kinds_by_tasks() -> Iterator[str]:
    notes: list[str] = []
    heads = [f"`{name}`{_marks(_for_all_kinds(name), notes)}" for name in TASKS]
    rows = [[kind.title, *(_cell(kind, task, notes) for task in TASKS)] for kind in KINDS.values()]
    for task, other in SAME_OUTPUTS.items():
        heads = [f"{head}, `{task}`" if name == other else head for name, head in zip(TASKS, heads, strict=True)]
    yield from table(["", *heads], rows)
    yield "".join(f"[^{i}]: {note}\n" for i, note in enumerate(notes, 1))


def _tasks_alone() -> Iterator[str]:
    rows = []
    for task in ALONE.values():
        without = " ".join(f"Not {name}. {why}" for name, why in task.gaps.items())
        rows.append([f"`{task.name}`", ", ".join(n for n in ARCHITECTURES if n not in task.gaps), without])
    yield from table(["task", "architectures", ""], rows)


def _for_all_kinds(task: str) -> list[str]:
    gaps = dict.fromkeys(gap(Cell(name, kind, task)) for name in ARCHITECTURES for kind in KINDS)
    return [f"Not on {one.architecture}. {one.reason}" for one in gaps if one and one.check and not one.kinds]


def _cell(kind: Kind, task: str, notes: list[str]) -> str:
    names = kind.architectures or tuple(ARCHITECTURES)
    gaps = {name: gap(Cell(name, kind.name, task)) for name in names}
    having = [name for name, why in gaps.items() if why is None]
    without = [why for why in gaps.values() if why is not None and why.check is None]
    said = [
        f"Not on {why.architecture}. {why.reason}" for why in gaps.values() if why and why.check and why.kinds
    ]
    if kind.architectures:
        said.append(f"Tested only on {', '.join(having)}.")
    if not having:
        return f"–{_marks([f'On no architecture: {without[0].reason}'], notes)}"
    if 0 < len(without) < len(having):
        lacking = [name for name, why in gaps.items() if why is not None and why.check is None]
        said.append(f"Not on {', '.join(lacking)}: {without[0].reason}")
    elif without:
        said = [f"Only on {', '.join(having)}. On the others {without[0].reason}"]
    return f"✓{_marks(said, notes)}"


def _marks(said: Iterable[str], notes: list[str]) -> str:
    """Footnote marks for what is said, which joins the notes where it is new."""
    marks = ""
    for note in said:
        if note not in notes:
            notes.append(note)
        marks += f"[^{notes.index(note) + 1}]"
    return marks


def _row(architecture: Architecture) -> list[str]:
    targets = ", ".join(f"`{name}`" for name in architecture.attention)
    named = "PEFT's defaults" if "LORA" in architecture.defaults else f"name them: {targets}"
    by_modules: dict[tuple[str, ...], list[str]] = {}
    for task, modules in architecture.heads.items():
        by_modules.setdefault(modules, []).append(task)
    heads = [f"{', '.join(f'`{m}`' for m in ms)} ({', '.join(tasks)})" for ms, tasks in by_modules.items()]
    saved = "; ".join(heads) or "PEFT's defaults"
    return [architecture.name, named, f"{saved}, only with `all-linear`" if architecture.finds_heads else saved]


def _options() -> Iterator[list[str]]:
    """Every option of PEFT's LoraConfig, in the order of its fields."""
    for option in fields(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.LORA]):
        verdict, why = _verdict(option.name)
        yield [f"`{option.name}`", verdict, f"{why}."]


def _verdict(option: str) -> tuple[str, str]:
    if option in REFUSED_OPTIONS:
        return "refused", "; ".join(REFUSED_OPTIONS[option])
    if option in CONVERTED_OPTIONS:
        return "converted to LoRA", CONVERTED_OPTIONS[option]
    return "served", SERVED_OPTIONS["LORA"][option]


def _options_of_others() -> Iterator[list[str]]:
    for kind in sorted(SERVED_OPTIONS.keys() - {"LORA"}):
        own = {name: how for name, how in SERVED_OPTIONS[kind].items() if how != SERVED_OPTIONS["LORA"].get(name)}
        having = {option.name for option in fields(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)])}
        refused = having - SERVED_OPTIONS[kind].keys()
        by_verdict = {how: [f"`{n}`" for n, one in own.items() if one == how] for how in own.values()}
        said = "; ".join(f"{', '.join(names)}: {how}" for how, names in by_verdict.items())
        yield [kind, said, ", ".join(f"`{name}`" for name in sorted(refused)) or "none"]


def _refused() -> Iterator[list[str]]:
    for reason in dict.fromkeys(REFUSED.values()):
        kinds = [kind for kind, why in REFUSED.items() if why == reason]
        yield [", ".join(kinds), f"{reason}."]
