"""Builds small tokenizers of the families that foundations use, with the tokenizers library, from a few texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = (
    "Ada Lovelace went to London and met Charles Babbage in June 1833, at a party in Dorset Street.",
    "The new headphones sound dull, and the left ear cup broke within a week of careful use.",
    "Where did they meet? Who met Babbage? Where is my parcel? It was due on Monday.",
    "New York's cafés are naïve; İstanbul's are not. The parcel was in London, not in Paris!",
) * 2


@dataclass(frozen=True)
class Family:
    """A family of tokenizers: its special tokens, and the function that builds a tokenizer from them.

    `special`: the tokens for padding, for an unknown token, for the start and end of a row, and for a mask.
    """

    special: Sequence[str]
    build: Callable[[Sequence[str]], Tokenizer]


def _trained(tokenizer: Tokenizer, trainer: type, special: Sequence[str], **options: object) -> Tokenizer:
    tokenizer.train_from_iterator(
        CORPUS, trainer(special_tokens=list(special), vocab_size=400, show_progress=False, **options)
    )
    return tokenizer


def _template(tokenizer: Tokenizer, begin: str, end: str, pair: str, second: int = 0) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[begin, "$A", end],
        pair=[begin, "$A", end, *pair.split(), f"$B:{second}", f"{end}:{second}"],
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
    )


def _wordpiece(lowercase: bool) -> Callable[[Sequence[str]], Tokenizer]:
    def build(special: Sequence[str]) -> Tokenizer:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        _trained(tokenizer, trainers.WordPieceTrainer, special)
        _template(tokenizer, "[CLS]", "[SEP]", "", 1)
        return tokenizer

    return build


def _wordpiece_in_roberta_s_frame(special: Sequence[str]) -> Tokenizer:
    tokenizer = _wordpiece(True)([*special, "[CLS]", "[SEP]"])
    ends = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=False)
    return tokenizer


def _byte_level(prefix_space: bool) -> Callable[[Sequence[str]], Tokenizer]:
    def build(special: Sequence[str]) -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        return _trained(tokenizer, trainers.BpeTrainer, special, initial_alphabet=alphabet)

    return build


def _trimmed(prefix_space: bool) -> Callable[[Sequence[str]], Tokenizer]:
    def build(special: Sequence[str]) -> Tokenizer:
        tokenizer = _byte_level(prefix_space)(special)
        ends = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
        tokenizer.post_processor = processors.RobertaProcessing(
            *ends, trim_offsets=True, add_prefix_space=prefix_space
        )
        # The mask token includes the space before it.
        tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
        return tokenizer

    return build


def _trimmed_without_special_tokens(special: Sequence[str]) -> Tokenizer:
    tokenizer = _byte_level(True)(special)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=True)
    return tokenizer


def _untrimmed(special: Sequence[str]) -> Tokenizer:
    tokenizer = _byte_level(False)(special)
    _template(tokenizer, "[CLS]", "[SEP]", "")
    return tokenizer


def _untrimmed_without_special_tokens(special: Sequence[str]) -> Tokenizer:
    tokenizer = _byte_level(False)(special)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _unigram(
    begin: str, end: str, pair: str = "", second: int = 0, lowercase: bool = False
) -> Callable[[Sequence[str]], Tokenizer]:
    def build(special: Sequence[str]) -> Tokenizer:
        lowered = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
        normalizer = normalizers.Sequence(lowered if lowercase else [normalizers.NFKC()])
        words = normalizer.normalize_str(" ".join(CORPUS)).split()
        # The pieces are parts of words, five characters long, and single characters, which score lower.
        pieces = {f"▁{word}"[i : i + 5]: -5.0 for word in words for i in range(0, len(word) + 1, 5)}
        scores = dict.fromkeys((*special, *sorted(set("▁".join(words)))), -10.0) | pieces
        unknown = next(i for i, token in enumerate(special) if "unk" in token.lower())
        tokenizer = Tokenizer(models.Unigram(list(scores.items()), unknown))
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.add_special_tokens(list(special))
        _template(tokenizer, begin, end, pair, second)
        return tokenizer

    return build


def _sentencepiece(special: Sequence[str]) -> Tokenizer:
    """Return a BPE over whole texts whose spaces a normaliser replaces, like a converted SentencePiece model."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    _trained(tokenizer, trainers.BpeTrainer, special)
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)])
    _template(tokenizer, "<s>", "</s>", "")
    return tokenizer


_MPNET = ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")
_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
FAMILIES = {
    "lower-casing WordPiece": Family(_BERT, _wordpiece(True)),
    "cased WordPiece": Family(_BERT, _wordpiece(False)),
    "WordPiece, trimmed": Family(_MPNET, _wordpiece_in_roberta_s_frame),
    "byte-level BPE, trimmed": Family(_ROBERTA, _trimmed(False)),
    "byte-level BPE, trimmed, with a space before": Family(_ROBERTA, _trimmed(True)),
    "byte-level BPE, trimmed, no special tokens": Family(("<|endoftext|>",), _trimmed_without_special_tokens),
    "byte-level BPE": Family(("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"), _untrimmed),
    "byte-level BPE, no special tokens": Family(("<|endoftext|>",), _untrimmed_without_special_tokens),
    "Unigram": Family(_ROBERTA, _unigram("<s>", "</s>", "</s>")),
    "Unigram of two types": Family(
        ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"), _unigram("[CLS]", "[SEP]", second=1)
    ),
    "lower-casing Unigram": Family(
        ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"), _unigram("[CLS]", "[SEP]", second=1, lowercase=True)
    ),
    "SentencePiece BPE": Family(_ROBERTA, _sentencepiece),
}
# The family that an architecture's published checkpoints use.
OF_ARCHITECTURE = {
    "bert": "lower-casing WordPiece",
    "roberta": "byte-level BPE, trimmed",
    "xlm-roberta": "Unigram",
    "distilbert": "cased WordPiece",
    "electra": "lower-casing WordPiece",
    "albert": "lower-casing Unigram",
    "mpnet": "WordPiece, trimmed",
    "deberta-v2": "Unigram of two types",
    "modernbert": "byte-level BPE",
    "gpt2": "byte-level BPE, no special tokens",
    "camembert": "Unigram",
    "nomic_bert": "lower-casing WordPiece",
    "eurobert": "byte-level BPE",
    "gte": "Unigram",
    "jina_embeddings_v3": "Unigram",
    "bidirectional gemma3_text": "byte-level BPE",
    "bidirectional qwen3": "byte-level BPE",
}


@lru_cache
def tokenizer_json(family: str) -> str:
    """Return the content of the family's tokenizer.json."""
    chosen = FAMILIES[family]
    return chosen.build(chosen.special).to_str()


def save_tokenizer(family: str, folder: Path) -> Path:
    """Write the family's tokenizer.json into a folder, and return its path."""
    path = folder / "tokenizer.json"
    path.write_text(tokenizer_json(family), encoding="utf-8")
    return path


def transformers_tokenizer(path: Path, inputs: Sequence[str], max_length: int) -> PreTrainedTokenizerFast:
    """Return transformers' tokenizer of a tokenizer.json. `inputs` are the names of its model's inputs."""
    vocabulary = Tokenizer.from_file(str(path)).get_vocab()
    names = {
        "pad_token": ("[PAD]", "<pad>", "<|endoftext|>"),
        "unk_token": ("[UNK]", "<unk>"),
        "cls_token": ("[CLS]", "<s>"),
        "sep_token": ("[SEP]", "</s>"),
        "mask_token": ("[MASK]", "<mask>"),
    }
    special = {name: token for name, tokens in names.items() for token in tokens if token in vocabulary}
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path), model_max_length=max_length, model_input_names=list(inputs), **special
    )
