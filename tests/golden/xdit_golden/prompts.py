"""The 500 prompts of the token goldens."""

import random
import unicodedata

from .corpus import EMOJI, ENGLISH, FOREIGN, NUMBERS, PUNCTUATION, caption, chinese_sentence, sentence

SPACES = [
    "", " ", "   ", "\t", "\n", "\r\n", " a", "a ", "  a   b  ", "a\tb", "a\nb", "a\r\nb", "a\n\n\nb", "\ta\t", "a\u00a0b",
    "a\u3000b", "a\u2003b", "a\u2009b", "a\u200bb", "a\u2028b", "a\u2029b", "a\u0085b", "a\u000bb", "a\u000cb", "a\u1680b",
    "a\u202fb", "a\u205fb", " \u00a0 ", "red  circle", "red \t circle", "red circle ", "▁", "▁a", "a▁b", "▁▁", " ▁ a",
]
SPECIAL = [
    "<|startoftext|>", "<|endoftext|>", "a <|endoftext|> b", "<|STARTOFTEXT|>", "a<|endoftext|>b", "<| endoftext |>", "<pad>",
    "</s>", "<unk>", "<s>", "a</s>b", "a </s> b", "<extra_id_0>", "<extra_id_99>", "a<extra_id_5>b", "<extra_id_100>",
    "<EXTRA_ID_1>", "</w>", "a</w> b</w>", "&amp; &lt;b&gt; &#39;x&#39; &nbsp;", "<b>bold</b>", "<p class=\"x\">y</p>",
    "a <pad> b", " <pad>", "<pad> ", "<unk> <unk>", "[PAD] [CLS]", "{{x}} ${y} %(z)s", "\\n \\t \\u0041", "$1 \\1",
    "(red:1.3) [blue] ((green)) BREAK <lora:x:0.8>", "--ar 16:9 --v 5", "don't DON'T don’t I'll we've they're it's 's 'S",
]
CONTROL = [
    "a\u0000b", "\u0001", "a\u0007b", "a\u001bb[31mred", "a\u007fb", "a\u0080b", "\ufeffa", "a\ufeffb", "a\u00adb", "a\u200cb",
    "a\u200db", "a\u200eb\u200f", "a\u2060b", "a\u202eb\u202c", "\ufffd", "a\ufffdb", "\ufffe", "\uffff", "\ue000", "\U000f0000",
    "\U0010ffff", "\u0378", "a\u034fb", "\u061c", "\ufff9x\ufffa", "\U000e0001a", "a\ufe0f", "\ufe0f", "\u20e3", "\u0300",
]
NORMAL_FORMS = [
    "é", "e\u0301", "Å", "A\u030a", "Å", "ﬁ ﬂ ﬀ", "½ ¼ ⅓", "Ⅷ ⅷ", "① ⑳ ⓐ", "ｆｕｌｌ　ｗｉｄｔｈ", "ｶﾞｷﾞ", "ガ", "カ\u3099", "한", "ᄒ\u1161\u11ab",
    "ﷺ", "㎏ ㎞ ㍿", "x² y³ z₁", "™ © ®", "…", "ǆ ǅ Ǆ", "İ I ı i", "ẞ ß ss", "ΣΑΣ σας", "ΑΪ\u0301", "q\u0323\u0307", "q\u0307\u0323",
    "Z\u0335\u0351a\u0334l\u0338g\u0337o\u0336", "नि क्ष", "กำ", "ﻻ لا", "‘q’ ‚x‛ “y” „z‟", "— – ‒ ― − ‐ ‑", "㋿", "ℌ 𝔸 𝒜 𝟙", "ſ", "K k K",
    "〜 ~ ～", "· • ・", "´ ` ˋ", "ĳ Ĳ", "ŉ", "\u1e9b\u0323", "豈", "﨑", "\u0344", "\u2126", "e\u0301\u0301\u0301",
]
BLOCKS = [
    (0x00A1, 0x017F), (0x0180, 0x024F), (0x0370, 0x03FF), (0x0400, 0x04FF), (0x0530, 0x058F), (0x0590, 0x05FF), (0x0600, 0x06FF),
    (0x0900, 0x097F), (0x0E00, 0x0E7F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2070, 0x20CF),
    (0x2100, 0x218F), (0x2190, 0x23FF), (0x2460, 0x24FF), (0x2500, 0x27BF), (0x3000, 0x30FF), (0x3200, 0x33FF), (0x4E00, 0x9FFF),
    (0xA640, 0xA69F), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFE70, 0xFEFF), (0xFF00, 0xFFEF),
    (0x10400, 0x1044F), (0x1D400, 0x1D7FF), (0x1F300, 0x1F6FF), (0x1F900, 0x1F9FF), (0x20000, 0x2A6DF), (0x0300, 0x036F),
]
COUNT = 500


def long_prompts(rng: random.Random) -> list[str]:
    """Prompts past every limit, with and without spaces."""
    return [
        sentence(rng, ENGLISH, 60), sentence(rng, ENGLISH, 75), sentence(rng, ENGLISH, 200), sentence(rng, FOREIGN[6], 120),
        "a" * 700, "red" * 300, "😀" * 150, "é" * 200, ". " * 100, "x " * 76, "1 " * 75, "猫" * 120, "\n".join(["red circle"] * 30),
        " " * 500 + "a", "a" + " " * 500 + "b", "!" * 160, "a-" * 90, "#$%" * 40,
    ]


def random_characters(rng: random.Random) -> str:
    """A few assigned characters from two blocks, some of them among Latin words."""
    picked = []
    for _ in range(rng.randint(1, 10)):
        low, high = rng.choice(BLOCKS)
        picked.append(chr(rng.randint(low, high)))
    text = "".join(c for c in picked if unicodedata.category(c) not in ("Cn", "Cs"))
    return rng.choice(["", "a ", "red"]) + text + rng.choice(["", " b", "blue"])


def prompts() -> list[str]:
    """All of them, distinct, in a fixed order."""
    rng = random.Random(77)
    out = SPACES + SPECIAL + CONTROL + NORMAL_FORMS + PUNCTUATION + NUMBERS + EMOJI
    out += [caption(rng) for _ in range(50)]
    out += [caption(rng).upper() for _ in range(5)]
    out += [sentence(rng, ENGLISH, rng.randint(3, 25)) for _ in range(50)]
    out += [sentence(rng, words, rng.randint(2, 9)) for words in FOREIGN for _ in range(4)]
    every = ENGLISH + EMOJI + NUMBERS + PUNCTUATION + [word for words in FOREIGN for word in words]
    out += [sentence(rng, every, rng.randint(4, 14)) for _ in range(30)]
    out += long_prompts(rng)
    out = list(dict.fromkeys(out))
    while len(out) < COUNT:
        text = random_characters(rng)
        if text not in out:
            out.append(text)
    return out[:COUNT]


BERT_SPECIAL = [
    "[CLS]", "[SEP]", "[UNK]", "[MASK]", "a [MASK] b", "[mask]", "一[SEP]只", "[unused1]", "##ed", "red##ed", "<0x41>", "a<0x0A>b",
    "小猫red小猫", "小猫 。red，2只", "ＡＢＣ１２３", "小\u3000猫", "一\u200d只", "㐀𠀀豈", "x" * 99, "x" * 100, "x" * 101, "red" * 40,
    "ÀÉÎ Ñandú ÇA", "İstanbul", "ﬁne", "naïve-café", "don't", "a.b,c!d?e", "￥100、“引用”《书》", "Red RED rEd", "\u0130\u0307",
]


def chinese_prompts() -> list[str]:
    """500 for HunyuanDiT's tokenizers: 150 captions in Chinese, alone and mixed, what BERT treats specially, and the others."""
    rng = random.Random(78)
    out = BERT_SPECIAL + [chinese_sentence(rng) for _ in range(100)]
    for _ in range(50):
        parts = [chinese_sentence(rng), sentence(rng, ENGLISH, rng.randint(1, 5)), rng.choice(EMOJI + NUMBERS + PUNCTUATION)]
        rng.shuffle(parts)
        out.append(rng.choice(["", " ", ", "]).join(parts))
    out += [chinese_sentence(rng) * 12, "，".join(chinese_sentence(rng) for _ in range(8)), "猫" * 100]
    rest = prompts()
    rng.shuffle(rest)
    return list(dict.fromkeys(out + rest))[:COUNT]
