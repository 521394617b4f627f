"""Sentencepiece's character map cut down to what the prompts of the goldens need: 300 kB less in a `tokenizer.json`."""

import base64
import json
import tempfile
from pathlib import Path

import sentencepiece
from transformers.convert_slow_tokenizer import import_protobuf

LONGEST = 4  # characters that one rule replaces
ALWAYS = 0x3400


def normalizer(**rules) -> sentencepiece.SentencePieceNormalizer:
    """What the rules alone make of a text."""
    return sentencepiece.SentencePieceNormalizer(
        **rules, add_dummy_prefix=False, escape_whitespaces=False, remove_extra_whitespaces=False
    )


def rules_for(texts: list[str]) -> dict[str, str]:
    """The rules of `nmt_nfkc` below `ALWAYS`, and those that some part of the texts needs."""
    whole = normalizer(rule_name="nmt_nfkc").normalize
    texts = [*texts, *map(chr, range(1, ALWAYS))]
    parts = {text[i : i + n] for text in texts for n in range(1, LONGEST + 1) for i in range(len(text) - n + 1)}
    # A zero character ends what sentencepiece reads.
    made = {part: whole(part) for part in sorted(parts) if "\0" not in part}
    found = {}
    for part, normal in made.items():
        # Not a rule of its own: what shorter parts put together give.
        splits = {made[part[:i]] + made[part[i:]] for i in range(1, len(part))} or {part}
        if normal not in splits:
            found[part] = normal
    return found


def charsmap(rules: dict[str, str]) -> bytes:
    """The rules as sentencepiece compiles them."""
    def points(text: str) -> str:
        return " ".join(f"{ord(c):X}" for c in text)

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rules.tsv"
        table.write_text("".join(f"{points(a)}\t{points(b)}\n" for a, b in sorted(rules.items())))
        proto = import_protobuf().ModelProto.FromString(normalizer(rule_tsv=str(table)).serialized_model_proto())
    return proto.normalizer_spec.precompiled_charsmap


def cut_charsmap(path: Path, texts: list[str]) -> None:
    """Replaces the character map of a `tokenizer.json` by the part that `texts` need."""
    value = json.loads(path.read_text(encoding="utf-8"))
    compiled = charsmap(rules_for(texts))
    value["normalizer"]["precompiled_charsmap"] = base64.b64encode(compiled).decode()
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
