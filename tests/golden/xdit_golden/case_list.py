"""Which calls are recorded. Keys of `call` are the arguments of FluxPipeline.__call__."""

from dataclasses import dataclass

PROMPT = "a red circle on a blue background"
OTHER = "two large green stars and a small cat, to the left of a golden castle at night"
NEGATIVE = "blurry, low quality"
LONG = (
    "A highly detailed cinematic photograph of an ancient silver castle near a dark forest, with a golden owl flying "
    "over the river and a robot wearing a hat standing beside the garden window, soft morning light, snow on the "
    "street, a ship sleeping under the city, an astronaut holding a sign that says \"hello world\", watercolor sketch "
    "of two dogs running on the left, a small white cross at the bottom right, a large purple heart in the center, "
    "checkered yellow background, 35mm f/1.8, 8k, state-of-the-art digital render; it's the last word: zebra"
)
UNICODE = [
    "一只红色的圆形在蓝色背景上，雪",
    "café d'été, œuvre naïve — “déjà vu” ¿dónde está el niño?",
    "👩‍🚀 paints 🎨 a 👨‍👩‍👧‍👦 in 🇫🇷, ½ of Ⅷ & ①",
    "e\u0301 and é, A\u030a and Å, ﬁ, ｶﾀｶﾅ, ёжик ΟΔΟΣ قطة नीली แมว 고양이\u200d!",
]


@dataclass(frozen=True)
class Case:
    """One call. `seeds` is one generator for the batch (int) or one for each image (list)."""

    name: str
    call: dict
    seeds: int | list[int] = 42
    blocks: bool = False
    notes: str = ""
    scheduler: str | None = None
    """A class of diffusers, made from the configuration of the pipeline's own scheduler."""


def case(
    name: str, height: int, width: int, steps: int, seeds=42, blocks=False, notes="", scheduler=None, **call
) -> Case:
    """A case with the arguments that every case has; 40 T5 tokens unless told."""
    call = {
        "prompt": PROMPT,
        "height": height,
        "width": width,
        "num_inference_steps": steps,
        "max_sequence_length": 40,
        **call,
    }
    if call["max_sequence_length"] is None:
        del call["max_sequence_length"]
    return Case(name, call, seeds, blocks, notes, scheduler)


CASES = {
    "flux-dev": [
        case("square", 64, 64, 4),
        case("blocks", 48, 80, 2, seeds=0, blocks=True, prompt=OTHER, guidance_scale=2.5, max_sequence_length=24),
        case("batch", 16, 48, 3, seeds=7, prompt=[PROMPT, OTHER], num_images_per_prompt=2),
        case("generators", 32, 16, 2, seeds=[3, 1, 2**32 + 5, 42], prompt=[OTHER, PROMPT], num_images_per_prompt=2),
        case("true_cfg", 32, 48, 3, negative_prompt=NEGATIVE, true_cfg_scale=3.0),
        case(
            "true_cfg_batch", 32, 32, 2, seeds=5, prompt=[PROMPT, OTHER], prompt_2=[OTHER, PROMPT],
            negative_prompt=[NEGATIVE, ""], negative_prompt_2=["", NEGATIVE], true_cfg_scale=3.0,
            num_images_per_prompt=2,
        ),
        case("overflow", 32, 32, 2, prompt=LONG, max_sequence_length=48, notes="more than 77 CLIP and 48 T5 tokens"),
        case("unicode", 16, 32, 2, prompt=UNICODE),
        case("prompt_2", 32, 32, 2, prompt_2=OTHER),
        case("empty", 32, 32, 1, prompt="", guidance_scale=0.0),
        case("default_length", 32, 16, 2, max_sequence_length=None, notes="512 T5 tokens, the default"),
        case("snapped", 38, 50, 2, notes="diffusers warns and draws 32x48"),
        case("sigmas", 32, 32, 3, sigmas=[1.0, 0.7, 0.25]),
    ],
    "flux-schnell": [
        case("square", 48, 64, 4, guidance_scale=0.0),
        case("blocks", 80, 48, 2, seeds=0, blocks=True, prompt=OTHER, guidance_scale=0.0, max_sequence_length=24),
        case(
            "true_cfg", 32, 32, 2, prompt=[PROMPT, OTHER], negative_prompt=NEGATIVE, true_cfg_scale=3.0,
            notes="one negative prompt for two images: diffusers broadcasts it",
        ),
    ],
    "flux-variant": [
        case("square", 32, 32, 2),
    ],
}
VARIANTS = {"flux-variant": "fp16"}
