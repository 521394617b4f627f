"""Records the ids that transformers gives 500 prompts, called as the pipelines call their tokenizers."""

import json
from pathlib import Path

from transformers import BertTokenizer, CLIPTokenizer, T5Tokenizer, T5TokenizerFast, TokenizersBackend

from .prompts import chinese_prompts, prompts
from .store import versions, write_gzip

# Folders that hold the same tokenizer in different file forms share one list of ids. The class is the one that
# model_index.json names, so the one that FluxPipeline loads.
TOKENIZERS = [
    (
        "clip", CLIPTokenizer, 77,
        [f"pipelines/{name}/tokenizer" for name in ("flux-dev", "flux-variant", "sd3-medium", "sd35-large")],
    ),
    ("clip_json", CLIPTokenizer, 77, ["pipelines/flux-schnell/tokenizer", "pipelines/sd35-medium/tokenizer"]),
    ("clip_2", CLIPTokenizer, 77, ["pipelines/sd3-medium/tokenizer_2", "pipelines/sd35-large/tokenizer_2"]),
    ("clip_2_json", CLIPTokenizer, 77, ["pipelines/sd35-medium/tokenizer_2"]),
    ("t5", T5TokenizerFast, 64, ["pipelines/flux-dev/tokenizer_2", "pipelines/flux-schnell/tokenizer_2"]),
    (
        "t5_no_normalizer", T5TokenizerFast, 64,
        ["pipelines/flux-variant/tokenizer_2", "pipelines/sd35-medium/tokenizer_3", "pipelines/sd35-large/tokenizer_3"],
    ),
    ("demo_clip", CLIPTokenizer, 77, ["demo/tokenizer"]),
    ("demo_t5", TokenizersBackend, 24, ["demo/tokenizer_2"]),
]

HUNYUAN_TOKENIZERS = [
    ("bert", BertTokenizer, 77, ["pipelines/hunyuan-v1.1/tokenizer", "pipelines/hunyuan-v1.2/tokenizer"]),
    ("mt5", T5Tokenizer, 64, ["pipelines/hunyuan-v1.1/tokenizer_2", "pipelines/hunyuan-v1.2/tokenizer_2"]),
]


def encode(tokenizer, text: str, length: int) -> tuple[list[int], list[int]]:
    """Ids whole, and padded or cut to `length`."""
    whole = tokenizer([text], padding="longest").input_ids[0]
    padded = tokenizer(
        [text],
        padding="max_length",
        max_length=length,
        truncation=True,
        return_length=False,
        return_overflowing_tokens=False,
    ).input_ids[0]
    assert len(padded) == length, text
    return whole, padded


def recorded(texts: list[str], listed: list[tuple], golden: Path, demo: Path) -> bytes:
    """The prompts, and what each tokenizer listed makes of them."""
    tokenizers = []
    for name, kind, length, folders in listed:
        found = []
        for folder in folders:
            path = demo / folder.removeprefix("demo/") if folder.startswith("demo/") else golden / folder
            tokenizer = kind.from_pretrained(path)
            found.append([encode(tokenizer, text, length) for text in texts])
        assert all(ids == found[0] for ids in found), f"{folders} disagree"
        tokenizers.append(
            {
                "name": name,
                "folders": folders,
                "max_length": length,
                "ids": [whole for whole, _ in found[0]],
                "padded": [padded for _, padded in found[0]],
            }
        )
        distinct = {i for whole, _ in found[0] for i in whole}
        print(f"  {name}: {len(distinct)} of {len(tokenizer)} ids occur")
    value = {"versions": versions(), "prompts": texts, "tokenizers": tokenizers}
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()


def make(root: Path, golden: Path, demo: Path) -> None:
    """Writes `tokens.json.gz` and `hunyuan-tokens.json.gz`."""
    write_gzip(root / "tokens.json.gz", recorded(prompts(), TOKENIZERS, golden, demo))
    write_gzip(root / "hunyuan-tokens.json.gz", recorded(chinese_prompts(), HUNYUAN_TOKENIZERS, golden, demo))
