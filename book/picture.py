"""The picture of the README and the first page, from the finished quick runs on the phantom: `make picture`."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from nacl import plots
from nacl.experiments import train_run
from nacl.grids import plan

TARGET = Path(__file__).parent / "_assets" / "confidence.png"


def main() -> int:
    """Draw one test slice: the image with its label, and the confidence of the three networks."""
    results = [train_run(run) for run in plan("main")]
    case = results[0].dataset().split("test")[0]
    confidences = {
        plots.LOSS_NAMES[result.run.loss]: result.predict(case)[2].max(dim=0).values.numpy() for result in results
    }
    figure = plots.confidence_panels(case.image[0, 2], case.label[2], confidences, results[0].info["class_names"])
    figure.savefig(TARGET, dpi=150, metadata={"Software": None})
    plt.close(figure)
    for result in results:
        print(f"{result.run.loss}: run {result.info['identity']}, commit {result.info['commit'][:12]}")
    print(TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
