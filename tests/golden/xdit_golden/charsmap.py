"""Sentencepiece's character map cut down to what the prompts of the goldens need: 300 kB less in a `tokenizer.json`."""

import base64
import json
import tempfile
from pathlib import Path

import sentencepiece
from transformers.convert_slow_tokenizer import import_protobuf

LONGEST = 4  # characters that one rule replaces
ALWAYS = 0x3400
# Control characters, Latin-1, spaces, circled numbers, ideographic space, full and half width.
COMPACT = ((0x01, 0x20), (0x7F, 0x100), (0x2000, 0x2030), (0x2460, 0x2474), (0x3000, 0x3001), (0xFF01, 0xFF9F))


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


def tsv(rules: dict[str, str]) -> str:
    """The rules as sentencepiece reads them: code points in hexadecimal."""
    def points(text: str) -> str:
        return " ".join(f"{ord(c):X}" for c in text)

    return "".join(f"{points(a)}\t{points(b)}\n" for a, b in sorted(rules.items()))


def compact_rules() -> Path:
    """A file of rules: those of `nmt_nfkc` for the characters of `COMPACT` alone. The caller removes it."""
    whole = normalizer(rule_name="nmt_nfkc").normalize
    rules = {chr(c): whole(chr(c)) for low, high in COMPACT for c in range(low, high) if whole(chr(c)) != chr(c)}
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", delete=False) as file:
        file.write(tsv(rules))
    return Path(file.name)


def charsmap(rules: dict[str, str]) -> bytes:
    """The rules as sentencepiece compiles them."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rules.tsv"
        table.write_text(tsv(rules))
        proto = import_protobuf().ModelProto.FromString(normalizer(rule_tsv=str(table)).serialized_model_proto())
    return proto.normalizer_spec.precompiled_charsmap


def cut_charsmap(path: Path, texts: list[str]) -> None:
    """Replaces the character map of a `tokenizer.json` by the part that `texts` need."""
    value = json.loads(path.read_text(encoding="utf-8"))
    compiled = charsmap(rules_for(texts))
    value["normalizer"]["precompiled_charsmap"] = base64.b64encode(compiled).decode()
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
