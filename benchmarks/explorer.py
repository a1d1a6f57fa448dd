"""How long a frame of each explorer takes after a slider moved: from the event to the end of drawing, in Chromium.

    python benchmarks/explorer.py [--size 64] [--moves 60]

The neighbourhood is measured on a map of `size` x `size` pixels and four classes, at windows up to 15 x 15.
"""

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from nacl import explorer
from nacl.cli.explore import SWEEP

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]
SLIDERS = {"neighbourhood": "Kernel size k", "penalty": "Penalty weight λ", "training": "NACL’s weight λ"}
MOVE = """async ([slider, moves]) => {
  const times = [];
  for (let i = 0; i < moves; i++) {
    const span = slider.max - slider.min, step = Number(slider.step);
    slider.value = Number(slider.min) + Math.round((span * i) / (moves - 1) / step) * step;
    await new Promise(requestAnimationFrame);
    const start = performance.now();
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise(requestAnimationFrame);  // the explorer's own was asked for before this one
    slider.closest(".nacl-explorer").getBoundingClientRect();  // and what it drew is laid out
    times.push(performance.now() - start);
  }
  return times;
}"""


def main() -> None:
    """Print a row an explorer: median and longest frame, and of it what the script itself took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--moves", type=int, default=60)
    options = parser.parse_args()
    labels = np.random.default_rng(0).integers(0, 4, (options.size, options.size))
    made = {
        "neighbourhood": explorer.neighbourhood(labels),
        "penalty": explorer.penalty(),
        "training": explorer.training(SWEEP),
    }
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        print(f"{'explorer':15} {'median ms':>10} {'longest ms':>11} {'script, last ms':>16}")
        for name, widget in made.items():
            page = browser.new_page()
            page.goto(f"file://{widget.save(Path(folder) / f'{name}.html')}")
            slider = page.get_by_label(SLIDERS[name]).first.element_handle()
            times = page.evaluate(MOVE, [slider, options.moves])
            script = page.locator(".nacl-explorer").get_attribute("data-milliseconds")
            print(f"{name:15} {statistics.median(times):10.1f} {max(times):11.1f} {script:>16}")
        browser.close()


if __name__ == "__main__":
    main()
