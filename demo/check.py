"""Draws the demo's prompts with diffusers and says which show what their prompt says.

    python demo/check.py                      writes demo/expected.json
    python demo/check.py --images FOLDER      checks FOLDER/00.png, 01.png, … (one per entry of facts.json) instead

The pixel check, the same for diffusers' pictures and for xdit-rs': all coordinates are fractions of width and height.

- An object passes if the mean colour of the 7x7 pixels around its point `inside` is nearer to its colour than to any
  other of the twelve (squared distance in sRGB).
- Background probes are the centres of an 8x8 grid of cells that lie further than 1.4 radii plus 0.03 from each object's
  centre. A probe passes if the mean of its 3x3 pixels is nearest to one of the background's shades, among these and the
  twelve colours. The background passes if three quarters of its probes do.
- A picture passes if its objects and its background do.
- So that a rounding error elsewhere cannot turn a verdict, a picture made by diffusers passes only if each object is
  nearer by `margin` >= 6 levels and 0.85 of the probes pass.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
PIPELINE = ROOT / "xdit-models" / "demo" / "flux"
FACTS = ROOT / "demo" / "facts.json"
EXPECTED = ROOT / "demo" / "expected.json"
# The demo's defaults; everything else is FluxPipeline's.
CALL = {"height": 256, "width": 256, "num_inference_steps": 20, "max_sequence_length": 24}
GRID = 8
THUMBNAIL = 16
OBJECT_PATCH, BACKGROUND_PATCH = 3, 1  # half widths in pixels
CLEARANCE_RADII, CLEARANCE = 1.4, 0.03
BACKGROUND_SHARE = 0.75
EXPECTED_MARGIN, EXPECTED_SHARE = 6.0, 0.85


def palette(facts: list[dict]) -> dict[str, list[int]]:
    """The twelve named colours as RGB, read from the facts."""
    named = {}
    for fact in facts:
        for thing in fact["objects"]:
            named[thing["color"]] = thing["rgb"]
        named.setdefault(fact["background"]["color"], fact["background"]["rgb"][0])
    if len(named) != 12:
        raise SystemExit(f"{FACTS} names {len(named)} colours, not 12")
    return dict(sorted(named.items()))


def patch_mean(image: np.ndarray, x: float, y: float, half: int) -> np.ndarray:
    """Mean RGB of the (2·half+1)² pixels around the pixel that holds the point (x, y)."""
    height, width, _ = image.shape
    column, row = min(int(x * width), width - 1), min(int(y * height), height - 1)
    rows = slice(max(row - half, 0), row + half + 1)
    columns = slice(max(column - half, 0), column + half + 1)
    return image[rows, columns].reshape(-1, 3).astype(np.float64).mean(axis=0)


def nearest(color: np.ndarray, choices: list) -> int:
    """Index of the choice nearest in sRGB; the first of equals."""
    return int(((np.array(choices, dtype=np.float64) - color) ** 2).sum(axis=1).argmin())


def margin_of(color: np.ndarray, name: str, colors: dict[str, list[int]]) -> float:
    """By how many levels `color` is nearer to the named colour than to any other; negative if it is not."""
    distance = {key: float(np.linalg.norm(color - np.array(value))) for key, value in colors.items()}
    return min(value for key, value in distance.items() if key != name) - distance[name]


def probes(fact: dict) -> list[tuple[float, float]]:
    """Grid points that are clear of every object."""
    points = [((i + 0.5) / GRID, (j + 0.5) / GRID) for j in range(GRID) for i in range(GRID)]

    def clear(point) -> bool:
        return all(
            np.hypot(point[0] - thing["center"][0], point[1] - thing["center"][1])
            > CLEARANCE_RADII * thing["radius"] + CLEARANCE
            for thing in fact["objects"]
        )

    return [point for point in points if clear(point)]


def check_image(image: np.ndarray, fact: dict, colors: dict[str, list[int]]) -> dict:
    """What the picture shows where: colours at the objects, share of background probes, and the verdict."""
    names, values = list(colors), list(colors.values())
    means = [patch_mean(image, *thing["inside"], OBJECT_PATCH) for thing in fact["objects"]]
    found = [names[nearest(mean, values)] for mean in means]
    margin = min(margin_of(mean, thing["color"], colors) for mean, thing in zip(means, fact["objects"]))
    shades = fact["background"]["rgb"]
    points = probes(fact)
    right = [nearest(patch_mean(image, x, y, BACKGROUND_PATCH), shades + values) < len(shades) for x, y in points]
    share = sum(right) / len(right)
    passes = found == [thing["color"] for thing in fact["objects"]] and share >= BACKGROUND_SHARE
    return {"found": found, "margin": round(margin, 2), "background": round(share, 4), "passes": passes}


def thumbnail(image: np.ndarray) -> list[str]:
    """Box averages on a 16x16 grid, rounded; one string of hex RGB a row."""
    height, width, _ = image.shape
    boxes = image.astype(np.float64).reshape(THUMBNAIL, height // THUMBNAIL, THUMBNAIL, width // THUMBNAIL, 3)
    means = np.rint(boxes.mean(axis=(1, 3))).astype(np.uint8)
    return [bytes(row.reshape(-1)).hex() for row in means]


def load_pipeline():
    """The demo pipeline in f32."""
    import torch
    from diffusers import FluxPipeline

    torch.set_num_threads(int(os.environ.get("XDIT_DEMO_THREADS", "1")))
    pipe = FluxPipeline.from_pretrained(PIPELINE, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, prompt: str, seed: int) -> np.ndarray:
    """The pixels of one picture with the demo's defaults, [H, W, 3] u8."""
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    return np.asarray(pipe(prompt, **CALL, generator=generator).images[0].convert("RGB"))


def write_expected(facts: list[dict]) -> None:
    """Draws every prompt and writes expected.json, one line a picture."""
    from importlib.metadata import version

    colors, pipe = palette(facts), load_pipeline()
    images = []
    for index, fact in enumerate(facts):
        image = draw(pipe, fact["prompt"], fact["seed"])
        result = check_image(image, fact, colors)
        clear = result["margin"] >= EXPECTED_MARGIN and result["background"] >= EXPECTED_SHARE
        result["passes"] = result["passes"] and clear
        images.append({"prompt": fact["prompt"], "seed": fact["seed"], **result, "thumbnail": thumbnail(image)})
        print(f"{index:2} {'pass' if result['passes'] else 'FAIL'} {fact['prompt']}: {result['found']} "
              f"{result['margin']} {result['background']}", flush=True)
    head = {
        "made_with": {name: version(name).split("+")[0] for name in ("torch", "diffusers", "transformers")},
        "call": CALL,
        "palette": colors,
        "passing": sum(image["passes"] for image in images),
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    body = ",\n".join(f"    {json.dumps(image)}" for image in images)
    EXPECTED.write_text("{\n" + "\n".join(lines) + f'\n  "images": [\n{body}\n  ]\n}}\n')


def check_folder(folder: Path, facts: list[dict]) -> int:
    """Checks pictures made elsewhere; 1 if a prompt that passes with diffusers fails here."""
    from PIL import Image

    colors, expected, lost = palette(facts), json.loads(EXPECTED.read_text()), 0
    for index, fact in enumerate(facts):
        image = np.asarray(Image.open(folder / f"{index:02}.png").convert("RGB"))
        passes = check_image(image, fact, colors)["passes"]
        lost += expected["images"][index]["passes"] and not passes
        print(f"{index:2} {'pass' if passes else 'FAIL'} {fact['prompt']}")
    print(f"{lost} of the {expected['passing']} prompts that pass with diffusers fail")
    return int(lost > 0)


def main() -> int:
    """Writes the expectations, or checks a folder of pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    arguments = parser.parse_args()
    facts = json.loads(FACTS.read_text())
    if arguments.images:
        return check_folder(arguments.images, facts)
    write_expected(facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
