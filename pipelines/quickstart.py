"""A first result: fit a photograph into 1/50 of its bytes, decode it, measure it, and lay both side by side.

    python3 pipelines/quickstart.py

Sets its environment up by itself; writes quickstart-output/.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import bootstrap

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE = bootstrap.ROOT / "tests" / "data" / "flower.png"
OUTPUT = bootstrap.ROOT / "quickstart-output"
RATIO = 50
DETAILS = ((820, 620), (230, 590), (1180, 340))
"""Top left corners, in PICTURE, of what is shown enlarged."""
DETAIL_SIZE = (192, 144)
ENLARGED = 2
MARGIN = 16
CAPTION = 48


def main() -> None:
    bootstrap.enter(".[dashboard]", "pillow")
    OUTPUT.mkdir(exist_ok=True)
    splats, decoded, sheet = OUTPUT / "flower.ssplat", OUTPUT / "flower.png", OUTPUT / "side-by-side.png"
    start = time.monotonic()
    command("fit", PICTURE, "-o", splats, "--ratio", str(RATIO), "--overwrite")
    seconds = time.monotonic() - start
    command("decode", splats, "-o", decoded, "--overwrite")
    score = json.loads(command("eval", splats, PICTURE, "--json", stdout=subprocess.PIPE))
    facts = (
        f"{score['bytes'] / 1e3:.0f} kB, 1/{score['ratio']:.1f} of {score['raw_bytes'] / 1e6:.2f} MB, "
        f"{score['gaussians']} Gaussians, PSNR {score['psnr']:.2f} dB"
    )
    side_by_side(PICTURE, decoded, facts).save(sheet)
    print(f"\nratio    {score['ratio']:.1f}  (pixels of {score['raw_bytes']} bytes in a file of {score['bytes']})")
    print(f"PSNR     {score['psnr']:.2f} dB")
    print(f"MS-SSIM  {score['ms_ssim']:.4f}")
    print(f"seconds  {seconds:.1f}  (to fit {score['gaussians']} Gaussians)")
    print(f"picture  {sheet}")


def command(*arguments: str | Path, stdout: int | None = None) -> str:
    """Run one ``smartsplat-large`` command in the repository, its progress visible; returns a captured ``stdout``."""
    words = [str(a.relative_to(bootstrap.ROOT)) if isinstance(a, Path) else a for a in arguments]
    print(f"\n$ smartsplat-large {' '.join(words)}", flush=True)
    program = bootstrap.script("smartsplat-large")
    done = subprocess.run([program, *words], cwd=bootstrap.ROOT, stdin=subprocess.DEVNULL, stdout=stdout, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout or ""


def side_by_side(original: Path, decoded: Path, facts: str) -> Image:
    """Both pictures whole, and below each the same details enlarged by repeating pixels."""
    from PIL import Image, ImageDraw, ImageFont

    halves = [half(Image.open(path).convert("RGB")) for path in (original, decoded)]
    width, height = halves[0].size
    sheet = Image.new("RGB", (2 * width + 3 * MARGIN, height + CAPTION + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(22)
    for i, (picture, caption) in enumerate(zip(halves, ("original", f"decoded: {facts}"), strict=True)):
        left = MARGIN + i * (width + MARGIN)
        sheet.paste(picture, (left, CAPTION))
        draw.text((left, 12), caption, fill="black", font=font)
    return sheet


def half(picture: Image) -> Image:
    """One picture, its details framed, with these enlarged in a row below it."""
    from PIL import Image, ImageDraw

    across, down = (side * ENLARGED for side in DETAIL_SIZE)
    width = len(DETAILS) * (across + MARGIN) - MARGIN
    scale = width / picture.width
    whole = picture.resize((width, round(picture.height * scale)), Image.Resampling.LANCZOS)
    out = Image.new("RGB", (width, whole.height + MARGIN + down), "white")
    out.paste(whole, (0, 0))
    for i, (x, y) in enumerate(DETAILS):
        window = (x, y, x + DETAIL_SIZE[0], y + DETAIL_SIZE[1])
        frame = [round(side * scale) for side in window]
        ImageDraw.Draw(out).rectangle(frame, outline="white", width=3)
        crop = picture.crop(window).resize((across, down), Image.Resampling.NEAREST)
        out.paste(crop, (i * (across + MARGIN), whole.height + MARGIN))
    return out


if __name__ == "__main__":
    main()
