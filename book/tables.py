"""Tables of the pages that come from files of figures, and from what the readers and the networks say of themselves."""

from pathlib import Path

import pandas as pd

from nacl.data.benchmarks import READERS
from nacl.data.recipe import Recipe
from nacl.models import MODELS, count_parameters
from nacl.models.smp import DPT_ENCODER

MEMORY_AT = "16 x 4 x 192 x 192"


def speed_table(file: Path) -> str:
    """The figures of `benchmarks/losses.py` as Markdown: a row a rival, a column a shape, and how they were made."""
    figures = pd.read_csv(file)
    order = figures["loss"].drop_duplicates()
    ratios = figures.pivot(index="loss", columns="shape", values="of_cross_entropy").loc[order]
    ratios = ratios[figures["shape"].drop_duplicates()]
    at = figures[figures["shape"] == MEMORY_AT].set_index("loss")
    head = ["", *(f"{shape}" for shape in ratios), "memory", "ms"]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for loss, row in ratios.iterrows():
        cells = [f"{value:.2f}" for value in row]
        lines.append([loss, *cells, f"{at.loc[loss, 'memory_in_logits']:.2f}", f"{at.loc[loss, 'ms']:.1f}"])
    made = figures.iloc[0]
    note = (
        f"Memory and milliseconds at {MEMORY_AT}. {made['rounds']} rounds, {made['device_name']}, "
        f"torch {made['torch']}, commit `{made['commit'][:12]}`."
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{note}\n"


def data_table(file: Path) -> str:
    """The figures of `benchmarks/data.py` as Markdown, and how they were made."""
    figures = pd.read_csv(file)
    rows = [f"| {row.what} | {row.figure:g} {'' if pd.isna(row.unit) else row.unit} |" for row in figures.itertuples()]
    made = figures.iloc[0]
    note = f"{made['cores']} cores, {made['device_name']}, torch {made['torch']}, commit `{made['commit'][:12]}`."
    return "\n".join(["| | |", "| --- | ---: |", *rows]) + f"\n\n{note}\n"


def metrics_table(file: Path) -> str:
    """The figures of `benchmarks/metrics.py` as Markdown: a row a rival, and how they were made."""
    figures = pd.read_csv(file)
    lines = []
    for (metric, shape), of_metric in figures.groupby(["metric", "shape"], sort=False):
        head = [f"**{metric}**, {shape}", "ms", "times faster", "memory", "error"]
        lines += ["", *(f"| {' | '.join(line)} |" for line in (head, ["---"] + ["---:"] * 4))]
        for row in of_metric.itertuples():
            error = "" if pd.isna(row.error) else f"{row.error:.0e}" if row.error else "0"
            cells = [row.rival, f"{row.ms:.1f}", f"{row.times_faster:.1f}", f"{row.memory_in_logits:.2f}", error]
            lines.append(f"| {' | '.join(cells)} |")
    made = figures.iloc[0]
    note = f"{made['rounds']} rounds, {made['device_name']}, torch {made['torch']}, commit `{made['commit'][:12]}`."
    return "\n".join(lines) + f"\n\n{note}\n"


def benchmarks_list() -> str:
    """What each reader tells of its data set, as Markdown: a heading, facts, and the layout of the folder."""
    blocks = []
    for benchmark in READERS:
        facts = {
            "name": f"`{benchmark.name}`",
            "classes": ", ".join(benchmark.class_names),
            "channels": ", ".join(benchmark.channel_names),
            "regions": "; ".join(
                f"{name}: {', '.join(benchmark.class_names[k] for k in of)}" for name, of in benchmark.regions.items()
            ),
            "prepared": in_words(benchmark.recipe),
            "got at": f"<{benchmark.home}>",
            "licence": benchmark.licence,
            "source": f"{{cite:t}}`{benchmark.reference}`",
        }
        lines = [f"- {name}: {value}" for name, value in facts.items() if value]
        layout = f"```text\n{benchmark.layout.strip()}\n```"
        blocks.append("\n".join([f"## {benchmark.title}", "", *lines, "", layout]))
    return "\n\n".join(blocks) + "\n"


def models_list() -> str:
    """Every network by name as Markdown: axes, what it learns at the paper's sizes, and what `filters` sets."""
    head = ["network", "2D", "3D", "parameters", "what it is", "`filters` set"]
    lines = [head, ["---", "---", "---", "---:", "---", "---"]]
    for name, network in MODELS.items():
        encoder = DPT_ENCODER if name == "smp.DPT" else "resnet18"
        count = count_parameters(name, 1, 4, filters=32, encoder=encoder, patch=(192, 192))
        axes = ["yes" if axes in network.axes else "" for axes in (2, 3)]
        lines.append([f"`{name}`", *axes, f"{count:,}", network.description, network.filters])
    note = (
        "Parameters of slices of 192 x 192 pixels, 1 channel, 4 classes and 32 filters, with the encoder `resnet18` "
        f"(`smp.DPT`: `{DPT_ENCODER}`)."
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{note}\n"


def in_words(recipe: Recipe) -> str:
    """What a recipe does, as one phrase."""
    spacing = f"resampled to {recipe.spacing:g} mm in plane" if recipe.spacing else "resolution as stored"
    frame = f"{recipe.size} x {recipe.size} pixels about the centre" if recipe.size else "padded to a square"
    intensity = {
        "minmax": "from the least to the largest value",
        "percentiles": f"from the {recipe.low:g} to the {recipe.high:g} percentile",
        "window": f"from {recipe.low:g} to {recipe.high:g} in the file's unit",
    }[recipe.intensity]
    return f"{spacing}; {frame}; intensities {intensity} to [0, 1]"
