"""Makes every golden file of this folder again: `python tests/golden/generate.py`.

    --only PART...   pipelines, cases, vae, sizes, noise, tokens, schedulers, tensors, demo
    --check          makes them in a temporary folder instead and compares with the committed files

On the torch build of requirements.txt and the same kind of CPU the files come out bit for bit;
on an AVX2 CPU instead of AVX-512 within 1e-6. FORMAT.md says what the files hold.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
HERE = Path(__file__).resolve().parent
DEMO = HERE.parent.parent / "xdit-models" / "demo" / "flux"
sys.path.insert(0, str(HERE))

import diffusers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from xdit_golden import (  # noqa: E402
    cases, check, demo, hunyuan_pipelines, hunyuan_sizes, noise, pipelines, schedulers, sd3_pipelines, tensor_lists, tokens,
    vae,
)


def make_pipelines(root: Path) -> None:
    """The tiny pipelines under `pipelines/`."""
    with tempfile.TemporaryDirectory() as scratch:
        for recipe in pipelines.RECIPES:
            pipelines.build(recipe, root / "pipelines", Path(scratch))
        for recipe in sd3_pipelines.RECIPES:
            sd3_pipelines.build(recipe, root / "pipelines", Path(scratch))
        for recipe in hunyuan_pipelines.RECIPES:
            hunyuan_pipelines.build(recipe, root / "pipelines", Path(scratch))


def make_cases(root: Path) -> None:
    """What flows through the committed pipelines, under `cases/`."""
    cases.make(root, HERE / "pipelines")


def make_vae(root: Path) -> None:
    """Decoder and encoder, block by block, under `vae/`."""
    vae.make(root, HERE / "pipelines")


def make_sizes(root: Path) -> None:
    """HunyuanDiT's resolution binning and rotary tables of large pictures."""
    hunyuan_sizes.make(root, HERE / "pipelines")


def make_tokens(root: Path) -> None:
    """Ids of 500 prompts by the tokenizers of the committed pipelines and of the demo."""
    tokens.make(root, HERE, DEMO)


def make_demo(root: Path) -> None:
    """One picture of the demo pipeline."""
    demo.make(root, DEMO, HERE.parent.parent / "demo" / "expected.json")


PARTS = {
    "pipelines": make_pipelines,
    "cases": make_cases,
    "vae": make_vae,
    "sizes": make_sizes,
    "noise": noise.make,
    "tokens": make_tokens,
    "schedulers": schedulers.make,
    "tensors": tensor_lists.make,
    "demo": make_demo,
}


def main() -> int:
    """Runs the parts asked for; 1 if `--check` found a difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    check.refuse_other_versions(HERE / "requirements.txt")
    if not arguments.check:
        for part in arguments.only:
            print(f"{part} ...", flush=True)
            PARTS[part](HERE)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        for part in PARTS:
            if part in arguments.only:
                PARTS[part](made)
        return check.compare_folders(made, HERE)


if __name__ == "__main__":
    sys.exit(main())
