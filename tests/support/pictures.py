"""Landscapes for the gallery: drawn as SVG, so that no photograph has to be shipped or fetched."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

WIDTH, HEIGHT = 1200, 900

# Name: colours of sky, horizon, light, far and near hills; place and size of the light; roughness.
SCENES = {
    "Morning fog": ("#8fb7c9 #f6dcc0 #fff3d6 #a9bfc4 #1f3b45", (820, 330, 70), 0.9),
    "Dunes at noon": ("#3f8fc4 #cfe6ef #fffbe8 #e8b877 #8a4b22", (300, 190, 55), 0.3),
    "Red evening": ("#3b1d4f #ff8a4c #ffd9a0 #8f3a52 #1c0d1f", (600, 520, 110), 0.7),
    "First snow": ("#b9cfe6 #f4f7fb #ffffff #dfe9f2 #5b7897", (950, 200, 60), 1.1),
    "Moonlight": ("#050b1e #26457a #f1f4ff #2c4a78 #060d1c", (860, 210, 62), 0.8),
    "Tea hills": ("#9fd3c4 #f3f7d9 #fffce0 #a5c98b #1f5a3a", (200, 260, 60), 0.4),
    "Lavender": ("#7f8fd6 #f7cfe0 #fff0f2 #b79ad6 #3d2466", (520, 300, 80), 0.35),
    "Storm": ("#2b3640 #8fa3a8 #d6dfdf #5d7078 #11181c", (400, 260, 40), 1.2),
    "Copper coast": ("#0f5c70 #f7b267 #fff1c9 #c9774a #2a1410", (760, 470, 90), 0.55),
}


def scene(name: str) -> str:
    """Return the landscape of that name as an SVG document, the same in every run."""
    colours, (x, y, radius), roughness = SCENES[name]
    top, bottom, light, far, near = colours.split()
    dice = random.Random(name)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"><defs>'
        f'<linearGradient id="sky" x2="0" y2="1"><stop stop-color="{top}"/>'
        f'<stop offset=".8" stop-color="{bottom}"/></linearGradient>'
        f'<radialGradient id="glow"><stop stop-color="{light}" stop-opacity=".75"/>'
        f'<stop offset="1" stop-color="{light}" stop-opacity="0"/></radialGradient></defs>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="url(#sky)"/>'
        f'<circle cx="{x}" cy="{y}" r="{radius * 5}" fill="url(#glow)"/>'
        f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{light}"/>'
        + "".join(_hills(far, near, roughness, dice))
        + "</svg>"
    )


def _hills(far: str, near: str, roughness: float, dice: random.Random) -> Iterator[str]:
    layers = 6
    for layer in range(layers):
        share = layer / (layers - 1)
        base = HEIGHT * (0.5 + 0.43 * share)
        waves = [
            (dice.uniform(0.5, 1.2) * 2**octave, dice.uniform(0, math.tau), 0.5**octave)
            for octave in range(2 + round(3 * roughness))
        ]
        points = []
        for x in range(0, WIDTH + 8, 8):
            lift = sum(
                strength * math.sin(math.tau * x / WIDTH * pace + phase)
                for pace, phase, strength in waves
            )
            rise = (90 - 45 * share) * (0.6 + roughness / 2) * lift
            points.append(f"{x} {base - rise:.0f}")
        colour = f"color-mix(in oklab, {near} {100 * share:.0f}%, {far})"
        yield f'<path d="M0 {HEIGHT}L{"L".join(points)}L{WIDTH} {HEIGHT}Z" fill="{colour}"/>'
