"""Made-up text in many scripts: trains the tiny tokenizers and feeds the token goldens.

No text is taken from anywhere: sentences are drawn from the word lists below with a fixed seed.
"""

import random

COLORS = "red green blue yellow orange purple cyan pink white black brown gray".split()
SHAPES = "circle square triangle star ring diamond cross heart".split()
PLACES = [
    "in the center", "at the top", "at the bottom", "on the left", "on the right",
    "in the top left", "in the bottom right", "to the left of", "above", "below",
]
ENGLISH = (
    "a an the of with and under over near beside cat dog fox owl river mountain city street night morning "
    "golden silver ancient modern painting photograph portrait watercolor sketch digital render cinematic light "
    "shadow soft bright dark highly detailed studio castle forest ocean ship robot astronaut garden window "
    "running sleeping flying standing holding wearing hat coat sign says hello world it's don't we're you'll "
    "they've I'd he's rock'n'roll state-of-the-art 35mm f/1.8 8k"
).split()
FRENCH = "un une chat noir près de la forêt à l'été où ça naïve cœur œuvre garçon élève déjà vu château".split()
GERMAN = "ein großer Hund über dem Fluß schöne Straße Mädchen Übermut Äpfel größer heißt".split()
SPANISH = "el niño pequeño está en la montaña ¿dónde? ¡mañana! corazón señor cigüeña".split()
VIETNAMESE = "một con mèo đang ngủ trên ghế dưới ánh trăng đẹp tuyệt".split()
RUSSIAN = "красный круг на синем фоне старый город ночью снег идёт медленно ёжик".split()
GREEK = "ένας κόκκινος κύκλος σε μπλε φόντο ΟΔΟΣ θάλασσα".split()
CHINESE = "一只红色的圆形在蓝色背景上 猫 坐在 窗边 山水画 夜晚的城市 下雪了".split()
CHINESE_WHO = "小猫 白马 宇航员 老人 女孩 机器人 金鱼 大熊猫 诗人 蓝色的鸟".split()
CHINESE_DOES = "骑着 看着 画着 站在 飞过 坐在 拿着 走向".split()
CHINESE_WHAT = "红色的灯笼 古老的城堡 雪山 竹林 一把伞 夜晚的街道 湖边的小船 满天星星 一杯热茶 长城".split()
CHINESE_HOW = "水墨画风格 高清摄影 细节丰富 柔和的光线 动漫风格 油画 电影感".split()
JAPANESE = "赤い円 青い背景 ねこが眠る カタカナ ｶﾀｶﾅ 東京の夜 桜".split()
KOREAN = "빨간 원 파란 배경 고양이 서울의 밤".split()
ARABIC = "دائرة حمراء على خلفية زرقاء قطة صغيرة".split()
HINDI = "नीली पृष्ठभूमि पर लाल वृत्त बिल्ली".split()
THAI = "วงกลมสีแดงบนพื้นหลังสีน้ำเงิน แมว".split()
HEBREW = "עיגול אדום על רקע כחול".split()
FOREIGN = [
    FRENCH, GERMAN, SPANISH, VIETNAMESE, RUSSIAN, GREEK, CHINESE, JAPANESE, KOREAN, ARABIC, HINDI, THAI, HEBREW,
]
EMOJI = ["😀", "🎨", "👍🏽", "👩‍🚀", "👨‍👩‍👧‍👦", "❤️", "🏳️‍🌈", "🇫🇷", "☃", "⛄️", "1️⃣", "🫠"]
PUNCTUATION = [".", ",", "!", "?", "...", "…", "—", "–", ";", ":", "(", ")", "[x]", "{y}", "'", '"', "“q”", "‘s’", "«g»",
               "、", "。", "！", "@", "#tag", "$5", "50%", "^", "&", "*", "_", "~", "`", "\\", "/", "|", "<b>", "=", "+1"]
NUMBERS = ["0", "7", "42", "1999", "3.14", "1,000", "10²", "½", "Ⅷ", "①", "٣", "१२", "1e-5", "0x1F", "16:9", "２０"]


def caption(rng: random.Random) -> str:
    """A caption in the demo model's words."""
    size = rng.choice(["", "small ", "large "])
    place = rng.choice(PLACES)
    ground = rng.choice(["", "striped ", "checkered "])
    return (
        f"a {size}{rng.choice(COLORS)} {rng.choice(SHAPES)} {place} "
        f"on a {ground}{rng.choice(COLORS)} background"
    )


def sentence(rng: random.Random, words: list[str], length: int) -> str:
    """`length` words of `words`, some capitalised, with commas and a full stop here and there."""
    out = []
    for _ in range(length):
        word = rng.choice(words)
        if rng.random() < 0.15:
            word = word.capitalize()
        if rng.random() < 0.12:
            word += rng.choice([",", ".", "!", ";", ":"])
        out.append(word)
    return " ".join(out)


def chinese_sentence(rng: random.Random) -> str:
    """A caption in Chinese, with Chinese punctuation."""
    text = rng.choice(CHINESE_WHO) + rng.choice(CHINESE_DOES) + rng.choice(CHINESE_WHAT)
    return "，".join([text, *rng.sample(CHINESE_HOW, rng.randint(0, 2))]) + rng.choice(["", "。", "！"])


def training_text() -> list[str]:
    """Lines that the tiny tokenizers are trained on: mostly English, a few of each other language."""
    rng = random.Random(20240501)
    lines = [caption(rng) for _ in range(300)]
    lines += [sentence(rng, ENGLISH, rng.randint(4, 16)) for _ in range(500)]
    for words in FOREIGN:
        lines += [sentence(rng, words, rng.randint(3, 9)) for _ in range(40)]
    for _ in range(60):
        lines.append(sentence(rng, ENGLISH + EMOJI + NUMBERS + PUNCTUATION, rng.randint(4, 10)))
    return lines
