"""Which calls of Stable Diffusion 3 are recorded. Keys of `call` are the arguments of StableDiffusion3Pipeline.__call__."""

from .case_list import LONG, NEGATIVE, OTHER, PROMPT, UNICODE, Case
from .case_list import case as any_case


def case(name: str, height: int, width: int, steps: int, max_sequence_length=16, **rest) -> Case:
    """A case with 16 T5 tokens unless told; the guidance scale is diffusers' 7 unless told."""
    return any_case(name, height, width, steps, max_sequence_length=max_sequence_length, **rest)


CASES = {
    "sd3-medium": [
        case("square", 32, 32, 3, negative_prompt=NEGATIVE, max_sequence_length=4),
        case("blocks", 32, 48, 1, seeds=0, blocks=True, prompt=OTHER, guidance_scale=4.0, max_sequence_length=3),
        case("one_branch", 32, 16, 2, guidance_scale=1.0, negative_prompt=NEGATIVE, notes="the negative prompt is not used"),
        case(
            "batch", 16, 32, 2, seeds=7, prompt=[PROMPT, OTHER], num_images_per_prompt=2, negative_prompt=[NEGATIVE, ""],
            max_sequence_length=1,
        ),
    ],
    "sd35-medium": [
        case("square", 48, 48, 2, guidance_scale=4.5, max_sequence_length=6),
        case("blocks", 48, 32, 1, seeds=0, blocks=True, prompt=OTHER, guidance_scale=1.0, max_sequence_length=17),
        case("generators", 32, 16, 2, seeds=[3, 2**32 + 5], num_images_per_prompt=2, guidance_scale=3.0),
        case(
            "prompts", 16, 32, 2, prompt_2=OTHER, prompt_3="a cat", negative_prompt=NEGATIVE, negative_prompt_2="a dog!",
            negative_prompt_3="snow", guidance_scale=3.0,
        ),
        case("negative_2", 16, 32, 1, prompt_3=OTHER, negative_prompt_2=NEGATIVE, guidance_scale=3.0),
        case("clip_skip", 16, 32, 2, clip_skip=1, guidance_scale=3.0, notes="skips in the prompt, not in the negative one"),
        case("skip_layers", 16, 32, 6, skip_guidance_layers=[1, 3], guidance_scale=4.0, notes="step 1 only"),
        case(
            "skip_window", 16, 32, 4, skip_guidance_layers=[0, 4], skip_layer_guidance_scale=1.5,
            skip_layer_guidance_start=0.25, skip_layer_guidance_stop=0.75, guidance_scale=4.0, notes="step 2 only",
        ),
        case("overflow", 16, 32, 1, prompt=LONG, guidance_scale=1.0, notes="more than 77 CLIP and 16 T5 tokens"),
        case("unicode", 16, 16, 1, prompt=UNICODE, guidance_scale=1.0),
        case("default_length", 16, 32, 1, max_sequence_length=None, guidance_scale=1.0, notes="77 + 256 text tokens"),
        case("sigmas", 16, 32, 3, sigmas=[1.0, 0.7, 0.25], guidance_scale=0.0),
    ],
    "sd35-large": [
        case("square", 32, 32, 3, guidance_scale=3.5, max_sequence_length=5),
        case("blocks", 48, 32, 1, seeds=0, blocks=True, prompt=OTHER, guidance_scale=1.0, max_sequence_length=5),
        case("batch", 16, 48, 2, seeds=7, prompt=[PROMPT, OTHER], guidance_scale=2.5, max_sequence_length=5),
    ],
}
