"""Which calls of HunyuanDiT are recorded. Keys of `call` are the arguments of HunyuanDiTPipeline.__call__."""

from .case_list import LONG, NEGATIVE, OTHER, PROMPT, UNICODE, Case
from .case_list import case as any_case

CHINESE = "一只红色的小猫坐在古老的城堡上，水墨画风格"
CHINESE_OTHER = "宇航员骑着白马，满天星星。细节丰富"
CHINESE_NEGATIVE = "模糊，错误的眼睛，白色背景"
DPM, DDIM, EULER = "DPMSolverMultistepScheduler", "DDIMScheduler", "EulerDiscreteScheduler"


def case(name: str, height: int, width: int, steps: int, **rest) -> Case:
    """A case in the size that is asked for; the guidance scale is diffusers' 5 unless told."""
    rest = {"prompt": CHINESE, "use_resolution_binning": False, "max_sequence_length": None, **rest}
    return any_case(name, height, width, steps, **rest)


CASES = {
    "hunyuan-v1.1": [
        case("square", 32, 32, 3, prompt=PROMPT, negative_prompt=NEGATIVE),
        case("blocks", 48, 32, 1, seeds=0, blocks=True, scheduler=DPM, prompt=CHINESE_OTHER, guidance_scale=4.0),
        case(
            "sizes", 16, 32, 2, original_size=(600, 800), target_size=(512, 384), crops_coords_top_left=(32, 16),
            guidance_scale=3.0,
        ),
        case("prompts", 32, 16, 2, seeds=[3, 2**32 + 5], prompt=[CHINESE, OTHER], negative_prompt=["", CHINESE_NEGATIVE]),
        case("dpm", 16, 32, 4, scheduler=DPM, guidance_rescale=0.7),
        case("one_branch", 16, 32, 2, prompt=OTHER, guidance_scale=1.0),
    ],
    "hunyuan-v1.2": [
        case("square", 32, 48, 3, negative_prompt=CHINESE_NEGATIVE),
        case("blocks", 32, 48, 1, seeds=0, blocks=True, scheduler=DPM, prompt=CHINESE_OTHER, guidance_scale=1.0),
        case(
            "batch", 16, 32, 2, seeds=7, prompt=[CHINESE, PROMPT], num_images_per_prompt=2, negative_prompt=[NEGATIVE, ""],
            notes="diffusers gives image i the text masks of prompt i modulo 2, the embeddings of prompt i / 2",
        ),
        case("generators", 32, 16, 3, seeds=[3, 2**32 + 5], num_images_per_prompt=2, guidance_scale=3.0),
        case("rescale", 32, 32, 3, guidance_rescale=0.7, prompt=OTHER),
        case("one_branch", 32, 16, 2, guidance_scale=1.0, negative_prompt=NEGATIVE, notes="the negative prompt is not used"),
        case("dpm", 16, 32, 6, scheduler=DPM),
        case("ddim", 16, 32, 3, scheduler=DDIM),
        case("ddim_eta", 16, 32, 3, scheduler=DDIM, eta=0.5, notes="draws noise in each step"),
        case("euler", 16, 32, 4, scheduler=EULER, guidance_rescale=0.5),
        case("overflow", 16, 32, 1, prompt=2 * (LONG + " "), guidance_scale=1.0, notes="more than 77 BERT and 256 T5 tokens"),
        case("unicode", 16, 16, 1, prompt=UNICODE, guidance_scale=1.0),
        case("empty", 16, 16, 1, prompt="", guidance_scale=2.0),
    ],
}
