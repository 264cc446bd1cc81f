"""Opens, checks and writes bundles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from rootstock.adapters.bundle.archive import (
    CARD,
    CONFIG,
    GOLDEN,
    MANIFEST,
    TOKENIZER_FILE,
    WEIGHTS,
    Archive,
    Limits,
    open_archive,
    pack,
)
from rootstock.adapters.bundle.base_weights import BaseWeights
from rootstock.adapters.bundle.golden import Golden, read_golden
from rootstock.adapters.bundle.kinds.lora import needed
from rootstock.adapters.bundle.labels import config_labels
from rootstock.adapters.bundle.manifest import Manifest, check_labels, read_manifest
from rootstock.adapters.bundle.names.former_names import present_name
from rootstock.adapters.bundle.names.tower_names import whole_model
from rootstock.adapters.bundle.peft_config import PeftConfig, read_config
from rootstock.adapters.bundle.plain.base_model import BASE, check_base, is_same
from rootstock.adapters.bundle.plain.extras import MODEL, extra_of
from rootstock.adapters.bundle.plain.folder import (
    PlainFields,
    plain_end,
    plain_head,
    plain_labels,
    plain_preprocessing,
    plain_problem,
    plain_task,
    plain_template,
    plain_warnings,
)
from rootstock.adapters.bundle.plain.origin import short_names, with_former_names
from rootstock.adapters.bundle.tensors import read_tensors
from rootstock.adapters.bundle.vocabulary.added_tokens import added_tokens, check_ids
from rootstock.adapters.bundle.vocabulary.word_rows import holds_words
from rootstock.adapters.bundle.weights import read_weights
from rootstock.adapters.spec import (
    ZERO_SHOT_IMAGES,
    Adapter,
    Array,
    FoundationSpec,
    Preprocessing,
    Prompting,
    Rejected,
    TaskClass,
)
from rootstock.adapters.strict_json.canonical import sha256
from rootstock.adapters.strict_json.json_member import read_json
from rootstock.adapters.vocabulary.added_token import AddedToken

# The tokenizers library writes a file that was compact with line breaks, and merges that were texts as pairs.
# Either takes about twice as many bytes.
_WRITTEN_WIDER = 2
# The room for the most added tokens, with their flags.
_MAX_ADDED_BYTES = 2**20


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its manifest and its files by member name.

    `warnings` are the assumptions that were made when it was opened. `ignored` names the known extras in the
    upload that are not part of the bundle.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    warnings: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return self.manifest.digest

    def to_zip(self) -> bytes:
        """Return the bundle as one zip, `bundle.json` included."""
        return pack({**self.files, MANIFEST: self.manifest.to_bytes()})

    def check_named_base(self, foundation: FoundationSpec) -> None:
        """Raise Rejected (check "foundation") if a bundle without a fingerprint names another foundation.

        Call this when a bundle arrives. A stored bundle was compared on arrival, and its foundation may have
        been renamed since.
        """
        stated, name = (self.manifest.foundation[key] for key in ("fingerprint", "name"))
        if stated is None and name is not None and not is_same(name, foundation.name, foundation.other_names):
            raise Rejected(
                "foundation",
                f"{MANIFEST}: foundation.name",
                f"the bundle was made for {name!r} and has no fingerprint; this server runs {foundation.name!r}; "
                "publish the plain PEFT folder with the form field `foundation`",
            )

    def golden(self) -> Golden | None:
        """Return the golden set, or None for a bundle without one."""
        return read_golden(self.files[GOLDEN], self.manifest.modality) if GOLDEN in self.files else None

    def adapter(self, foundation: FoundationSpec, max_rank: int, base: BaseWeights | None = None) -> Adapter:
        """Return the adapter that this bundle holds, checked against a foundation.

        `base` is the foundation's weights; without them DoRA, trained biases and a pooler that is saved whole
        are refused. Raise Rejected with check "schema", "safetensors", "sites", "finite", "rank", "labels" or
        "foundation".
        """
        manifest = self.manifest
        config = read_config(read_json(self.files[CONFIG], CONFIG))
        task_class = foundation.class_for(manifest.task)
        if manifest.head.kind != "linear" and manifest.head.class_name != task_class.name:
            raise Rejected(
                "sites",
                "bundle.json: head.class",
                f"{manifest.head.class_name!r} does not serve {manifest.task} on {foundation.name}; the class is "
                f"{task_class.name!r}",
            )
        tensors = read_tensors(self.files[WEIGHTS])
        config = with_former_names(config, tensors, task_class, foundation)
        tokens = None if manifest.preprocessing is None else manifest.preprocessing.tokens
        _check_end(manifest.prompting, tokens)
        if tokens:
            check_ids(tokens, needed(base, "added_tokens").tokenizer())
        weights = read_weights(
            tensors,
            config,
            task_class,
            manifest.head,
            whole_model(foundation) if manifest.task == ZERO_SHOT_IMAGES else foundation,
            len(manifest.labels),
            max_rank,
            base,
            tokens,
        )
        targets = _targets(config, task_class, foundation)
        stated_targets = manifest.targets
        if config.former is not None:
            stated_targets = tuple(sorted(present_name(config.former, name) for name in stated_targets))
        if stated_targets != targets:
            raise Rejected("sites", "bundle.json: targets", _disagreement(stated_targets, targets))
        stated = manifest.foundation["fingerprint"]
        if stated is not None and stated != foundation.fingerprint:
            raise Rejected(
                "foundation",
                "bundle.json: foundation.fingerprint",
                f"the bundle was made for {manifest.foundation['name']} {stated}; this server runs "
                f"{foundation.name} {foundation.fingerprint}",
            )
        preprocessing = manifest.preprocessing or Preprocessing(foundation.max_tokens)
        if preprocessing.max_length > foundation.max_tokens:
            raise Rejected(
                "schema",
                "bundle.json: preprocessing.max_length",
                f"{preprocessing.max_length} tokens; {foundation.name} takes at most {foundation.max_tokens}",
            )
        return Adapter(
            digest=self.digest,
            task=manifest.task,
            problem_type=manifest.problem_type,
            labels=manifest.labels,
            head=manifest.head,
            preprocessing=preprocessing,
            weights=weights,
            prompting=manifest.prompting,
            calibration=manifest.calibration,
        )


def open_bundle(
    data: bytes | Archive,
    limits: Limits,
    foundation: FoundationSpec,
    plain: PlainFields | None = None,
    base: BaseWeights | None = None,
) -> Bundle:
    """Check the members, hashes and schema of the bundle in a zip, and return it; the zip may be open already.

    A plain PEFT folder gets its manifest here. One that changes the word embedding and brings a tokenizer needs
    `base`, which has the foundation's tokenizer. `Bundle.adapter` checks the tensors. Raise Rejected with check
    "size", "members", "names" or "schema", and for a plain PEFT folder also with the checks that its manifest
    needs.
    """
    archive = data if isinstance(data, Archive) else open_archive(data, limits)
    files = dict(archive.members)
    plain = plain or PlainFields()
    if MANIFEST not in files:
        return _from_plain(archive, foundation, plain, limits, base)
    if fields := plain.given():
        raise Rejected(
            "schema",
            fields[0],
            f"bundle.json states this already; leave out the form field `{fields[0]}`, which is only for plain "
            "PEFT folders",
        )
    manifest = read_manifest(files.pop(MANIFEST))
    if set(manifest.files) != set(files):
        different = sorted(set(manifest.files) ^ set(files))[0]
        raise Rejected("names", different, "the archive and `files` in bundle.json do not agree on this member")
    for name, content in files.items():
        if (actual := sha256(content)) != manifest.files[name]:
            raise Rejected("names", name, f"has the digest {actual}; bundle.json says {manifest.files[name]}")
    if GOLDEN in files:
        read_golden(files[GOLDEN], manifest.modality)
    return Bundle(manifest, files, ignored=archive.ignored)


def _check_end(prompting: Prompting, tokens: Iterable[AddedToken] | None) -> None:
    """Raise Rejected (check "schema") for an end of answers that the adapter does not add."""
    end = prompting.end_token
    if end is not None and end not in [token.content for token in tokens or ()]:
        message = f"{end!r} is none of the tokens in preprocessing.tokens; leave it out, or add it there"
        raise Rejected("schema", "bundle.json: prompting.end_token", message)


def _plain_tokens(
    archive: Archive,
    tensors: Mapping[str, Array],
    config: PeftConfig,
    task_class: TaskClass,
    foundation: FoundationSpec,
    base: BaseWeights | None,
) -> tuple[AddedToken, ...] | None:
    """Return the tokens that a plain folder's tokenizer adds, if the adapter changes what tokens mean."""
    if not holds_words(short_names(tensors, config), task_class, foundation):
        return None
    content = archive.tokenizer()
    if content is None:
        return None
    own = needed(base, "modules_to_save").tokenizer()
    if len(content) > (most := _WRITTEN_WIDER * own.nbytes + _MAX_ADDED_BYTES):
        # JSON takes up to some twenty times its size in memory, and a file of zeros hardly any room in a zip.
        raise Rejected(
            "size",
            TOKENIZER_FILE,
            f"the file has {len(content)} bytes and the limit is {most}, because the foundation's has "
            f"{own.nbytes}; save the foundation's own tokenizer with tokens added, or leave out the file if "
            "none is added",
        )
    return added_tokens(read_json(content, TOKENIZER_FILE), own)


def write_bundle(manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Return the bundle of these files, with `manifest.files` filled with their hashes."""
    hashes = {name: sha256(content) for name, content in sorted(files.items())}
    return Bundle(Manifest(**{**vars(manifest), "files": hashes}), dict(files))


def _targets(config: PeftConfig, task_class: TaskClass, foundation: FoundationSpec) -> tuple[str, ...]:
    modules = (*config.targets(task_class), *config.norms(task_class, foundation))
    return tuple(sorted(name.removeprefix(task_class.prefix) for name in modules))


def _disagreement(stated: Iterable[str], targeted: Iterable[str]) -> str:
    stated, targeted = list(stated), sorted(targeted)
    for name in sorted(set(stated) ^ set(targeted)):
        having, lacking = ("bundle.json", CONFIG) if name in stated else (CONFIG, "bundle.json")
        counts = f"({len(stated)} and {len(targeted)} modules)"
        return f"{having} targets {name} and {lacking} does not {counts}"
    return f"{stated[:3]}… is not the sorted list of the {len(targeted)} targeted modules, each of them once"


def _from_plain(
    archive: Archive,
    foundation: FoundationSpec,
    plain: PlainFields,
    limits: Limits,
    base: BaseWeights | None,
) -> Bundle:
    files = archive.members
    if GOLDEN in files:
        raise Rejected(
            "members", GOLDEN, "a golden set without bundle.json; add bundle.json or leave out the golden set"
        )
    value = read_json(files[CONFIG], CONFIG)
    compared = check_base(value.get(BASE), plain.foundation, foundation)
    config = read_config(value)
    task, sentence = plain_task(plain.task, config.task_type, archive, foundation)
    task_class = foundation.class_for(task)
    stated = archive.descriptions.get(MODEL)
    tensors = read_tensors(files[WEIGHTS])
    config = with_former_names(config, tensors, task_class, foundation)
    labels = plain_labels(tensors, task_class, config, plain, foundation, stated)
    check_labels(labels, task)
    template, held_by = plain_template(task, archive) or (None, None)
    preprocessing = plain_preprocessing(task, plain, foundation, sentence)
    tokens = _plain_tokens(archive, tensors, config, task_class, foundation, base)
    if tokens is not None and preprocessing is not None:
        preprocessing = replace(preprocessing, tokens=tokens)
    manifest = Manifest(
        task=task,
        problem_type=plain_problem(task, plain, len(labels)),
        head=plain_head(task_class, foundation, sentence),
        labels=labels,
        preprocessing=preprocessing,
        foundation={"fingerprint": None, "name": foundation.name, "revision": foundation.revision},
        targets=_targets(config, task_class, foundation),
        files={},
        prompting=Prompting(chat_template=template, end_token=plain_end(task, archive, tokens)),
    )
    bundle = write_bundle(manifest, {n: c for n, c in files.items() if n in (CONFIG, WEIGHTS, CARD)})
    if (size := len(bundle.manifest.to_bytes())) > limits.max_text_bytes:
        raise Rejected(
            "size",
            MANIFEST,
            f"the labels make it {size} bytes and the limit is {limits.max_text_bytes}; shorten the labels",
        )
    used = {extra_of(path) for path in archive.descriptions if path != MODEL} if sentence else set()
    if plain.labels is None and labels == config_labels(stated, len(labels), task_class.task):
        used.add(MODEL)
    if tokens is not None:
        used.add(TOKENIZER_FILE)
    return Bundle(
        bundle.manifest,
        bundle.files,
        tuple(plain_warnings(compared, labels, config, plain)),
        tuple(name for name in archive.ignored if name not in used and name != held_by),
    )
