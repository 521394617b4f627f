"""Trains the tiny CLIP and T5 tokenizers and writes them in each file form found on the hub."""

import io
import json
from collections import Counter
from functools import cache
from pathlib import Path

import sentencepiece
from tokenizers import Regex, normalizers, pre_tokenizers
from transformers import CLIPTokenizer, T5Tokenizer

from .corpus import training_text

CLIP_MERGES = 300
T5_PIECES = 420
CLIP_SPLIT = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes in byte-level BPE, in CLIP's vocabulary order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


def clip_words() -> Counter:
    """How often each word occurs in the training text, as a tuple of byte characters, the last with `</w>`."""
    normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    words = Counter()
    for line in training_text():
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(line)):
            words[(*word[:-1], word[-1] + "</w>")] += 1
    return words


def merge_pair(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """`word` with each occurrence of `pair`, from the left, joined."""
    out, i = [], 0
    while i < len(word):
        if word[i : i + 2] == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


@cache
def train_clip_bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges laid out as CLIP's: bytes, bytes ending a word, merges, start and end of text.

    Byte-pair encoding with ties broken by the pair itself: the trainer of the tokenizers library
    breaks them by hash order, so it gives other merges on each run.
    """
    words = clip_words()
    merges = []
    for _ in range(CLIP_MERGES):
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged = Counter()
        for word, count in words.items():
            merged[merge_pair(word, best)] += count
        words = merged
    tokens = byte_alphabet() + [c + "</w>" for c in byte_alphabet()]
    for left, right in merges:
        if left + right not in tokens:
            tokens.append(left + right)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}, merges


def train_t5_spiece() -> bytes:
    """A unigram sentencepiece model with T5's special ids and normalisation; rare characters stay unknown."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(training_text()),
        model_writer=out,
        vocab_size=T5_PIECES,
        model_type="unigram",
        character_coverage=0.985,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return out.getvalue()


def write_json(path: Path, value) -> None:
    """Writes JSON as the hub's files have it: indented, UTF-8, newline at the end."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_clip_vocab_merges(folder: Path, pad: str = "<|endoftext|>") -> None:
    """`vocab.json` + `merges.txt`, the form of the hub's FLUX.1 repositories.

    `pad` is `!`, id 0, in the hub's second tokenizer of Stable Diffusion 3: then every `!` of a prompt is that token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = train_clip_bpe()
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2"] + [f"{left} {right}" for left, right in merges]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    plain = {**special, "normalized": False}
    start, end = "<|startoftext|>", "<|endoftext|>"
    write_json(
        folder / "special_tokens_map.json",
        {
            "bos_token": {"content": start, **special},
            "eos_token": {"content": end, **plain},
            "pad_token": pad,
            "unk_token": {"content": end, **plain},
        },
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": {
                **({} if pad == end else {str(vocab[pad]): {"content": pad, **plain, "special": True}}),
                str(vocab[start]): {"content": start, **special, "special": True},
                str(vocab[end]): {"content": end, **plain, "special": True},
            },
            "bos_token": start,
            "clean_up_tokenization_spaces": True,
            "do_lower_case": True,
            "eos_token": end,
            "errors": "replace",
            "model_max_length": 77,
            "pad_token": pad,
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": end,
        },
    )


def save_clip_tokenizer_json(folder: Path, pad: str = "<|endoftext|>") -> None:
    """`tokenizer.json`, the only form that transformers 5 writes."""
    vocab, merges = train_clip_bpe()
    CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77, pad_token=pad).save_pretrained(folder)


def compact_json(path: Path) -> None:
    """Writes the JSON of a file again without spaces."""
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def save_t5_spiece(folder: Path) -> None:
    """`spiece.model`, with the configuration files that the hub has beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = train_t5_spiece()
    (folder / "spiece.model").write_bytes(model)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    extra = [f"<extra_id_{i}>" for i in range(100)]
    named = {"0": "<pad>", "1": "</s>", "2": "<unk>"}
    decoder = {i: {"content": t, **flags, "special": True} for i, t in named.items()}
    for i, token in enumerate(reversed(extra)):
        decoder[str(pieces + i)] = {"content": token, **flags, "special": True}
    write_json(
        folder / "special_tokens_map.json",
        {
            "additional_special_tokens": extra,
            "eos_token": {"content": "</s>", **flags},
            "pad_token": {"content": "<pad>", **flags},
            "unk_token": {"content": "<unk>", **flags},
        },
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": decoder,
            "additional_special_tokens": extra,
            "clean_up_tokenization_spaces": True,
            "eos_token": "</s>",
            "extra_ids": 100,
            "legacy": True,
            "model_max_length": 512,
            "pad_token": "<pad>",
            "sp_model_kwargs": {},
            "tokenizer_class": "T5Tokenizer",
            "unk_token": "<unk>",
        },
    )


def save_t5_tokenizer_json(folder: Path, spiece: Path) -> None:
    """`tokenizer.json`, as transformers converts it from the same `spiece.model`."""
    T5Tokenizer.from_pretrained(spiece, model_max_length=512).save_pretrained(folder)


def age_t5_tokenizer_json(path: Path) -> None:
    """Rewrites a T5 `tokenizer.json` as tokenizers before 0.15 wrote it, and without a normaliser."""
    value = json.loads(path.read_text(encoding="utf-8"))
    metaspace = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    value["normalizer"] = None
    value["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}
    value["decoder"] = metaspace
    write_json(path, value)
