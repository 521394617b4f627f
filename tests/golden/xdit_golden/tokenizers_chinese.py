"""Trains HunyuanDiT's tiny tokenizers, BERT's word pieces and mT5's unigrams, and writes them in each file form."""

import io
import random
from collections import Counter
from functools import cache
from pathlib import Path

import sentencepiece
from tokenizers import normalizers, pre_tokenizers
from transformers import BertTokenizer, T5Tokenizer
from transformers.convert_slow_tokenizer import import_protobuf

from .charsmap import compact_rules
from .corpus import CHINESE, ENGLISH, chinese_sentence, sentence, training_text
from .tokenizers_tiny import merge_pair, write_json

BERT_MERGES, BERT_RARE = 90, 3
MT5_PIECES = 700
# Not in the order of the class's defaults: ids must come from the vocabulary.
BERT_SPECIAL = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@cache
def lines() -> list[str]:
    """The text of the other tokenizers and as much Chinese again."""
    rng = random.Random(20240514)
    chinese = [chinese_sentence(rng) for _ in range(600)]
    mixed = [sentence(rng, CHINESE + ENGLISH, rng.randint(3, 9)) for _ in range(100)]
    return training_text() + chinese + mixed


@cache
def bert_vocabulary() -> list[str]:
    """Special tokens, single characters, Latin characters inside words (`##`), and merged Latin pieces.

    Chinese characters are words by themselves; rare characters, and most words of other scripts, stay unknown.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter()
    for line in lines():
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(line)):
            words[(word[0], *word[1:])] += 1
    characters = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    known = sorted(c for c, count in characters.items() if count >= BERT_RARE or c.isascii())
    latin = {word: count for word, count in words.items() if "".join(word).isascii()}
    words = Counter({(word[0], *(f"##{c}" for c in word[1:])): count for word, count in latin.items()})
    inner = sorted({piece for word in words for piece in word[1:]})
    pieces = BERT_SPECIAL + known + inner
    for _ in range(BERT_MERGES):
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        joined = best[0] + best[1].removeprefix("##")
        merged = Counter()
        for word, count in words.items():
            merged[tuple(joined if p == "".join(best) else p for p in merge_pair(word, best))] += count
        words = merged
        pieces.append(joined)
    return list(dict.fromkeys(pieces))


def save_bert_vocab(folder: Path) -> None:
    """`vocab.txt`, the form of the hub's HunyuanDiT repositories, with the configuration files beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = bert_vocabulary()
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    names = {"cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    write_json(folder / "special_tokens_map.json", names)
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    decoder = {str(vocabulary.index(token)): {"content": token, **flags} for token in sorted(names.values())}
    write_json(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": decoder,
            "clean_up_tokenization_spaces": True,
            "do_basic_tokenize": True,
            "do_lower_case": True,
            **names,
            "model_max_length": 77,
            "never_split": None,
            "strip_accents": None,
            "tokenize_chinese_chars": True,
            "tokenizer_class": "BertTokenizer",
        },
    )


def save_bert_json(folder: Path, scratch: Path) -> None:
    """`tokenizer.json`, the only form that transformers 5 writes."""
    save_bert_vocab(scratch)
    BertTokenizer.from_pretrained(scratch).save_pretrained(folder)


@cache
def mt5_model() -> bytes:
    """A unigram model as mT5's: bytes among its pieces, no extra ids; its character map has the most common rules."""
    out = io.BytesIO()
    rules = compact_rules()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines()),
            model_writer=out,
            vocab_size=MT5_PIECES,
            model_type="unigram",
            character_coverage=0.99,
            normalization_rule_tsv=str(rules),
            byte_fallback=True,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    finally:
        rules.unlink()
    model = import_protobuf().ModelProto.FromString(out.getvalue())
    # The name of a temporary file.
    model.normalizer_spec.normalization_rule_tsv = ""
    return model.SerializeToString(deterministic=True)


def save_mt5_spiece(folder: Path) -> None:
    """`spiece.model`, with the configuration files that the hub has beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(mt5_model())
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(folder / "special_tokens_map.json", names)
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    write_json(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": {
                str(i): {"content": token, **flags} for i, token in enumerate(("<pad>", "</s>", "<unk>"))
            },
            "additional_special_tokens": [],
            "clean_up_tokenization_spaces": True,
            "extra_ids": 0,
            "legacy": True,
            "model_max_length": 512,
            "sp_model_kwargs": {},
            "tokenizer_class": "T5Tokenizer",
            **names,
        },
    )


def save_mt5_json(folder: Path, scratch: Path) -> None:
    """`tokenizer.json`, as transformers converts it from the same `spiece.model`."""
    save_mt5_spiece(scratch)
    T5Tokenizer.from_pretrained(scratch).save_pretrained(folder)
