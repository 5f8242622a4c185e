"""From the measured samples to medians and ratios, the Markdown tables and the plots."""

import statistics
from pathlib import Path

from benchmarks import jobs
from benchmarks.peers import PEERS

# What the others are compared with: the first that was measured.
REFERENCES = (
    *(
        f"{job}_{name}"
        for job in jobs.JOBS[1:]
        for name in ("minidl_compiled", "minidl_numpy", "minidl_eager")
    ),
    "minidl_compiled",
    "minidl_mkl",
    "minidl_numpy",
    "minidl_eager",
    "gpu_minidl",
    "gpu_minidl_tf32",
    "gpu_minidl_bfloat16",
    "gpu_minidl_eager",
)
COLOURS = {
    "minidl_mkl": "#7c2d12",
    **{
        f"{prefix}{name}": colour
        for prefix in ("", *(f"{job}_" for job in jobs.JOBS[1:]))
        for name, colour in (
            ("minidl_compiled", "#9a3412"),
            ("minidl_numpy", "#ea580c"),
            ("minidl_eager", "#fdba74"),
        )
    },
    "gpu_minidl": "#9a3412",
    "gpu_minidl_tf32": "#ea580c",
    "gpu_minidl_bfloat16": "#7c2d12",
    "gpu_minidl_eager": "#fdba74",
}
OTHERS = "#94a3b8"
ABSENT = "-"


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def summarise_steps(milliseconds: dict[str, list[float]]) -> dict:
    """By peer: quartiles of the time per step, and of its ratio to minidl's in the same round."""
    reference = reference_of(milliseconds)
    summary = {}
    for name, samples in milliseconds.items():
        low, median, high = quartiles(samples)
        summary[name] = {"median": median, "quartiles": [low, high]}
        if reference:
            low, median, high = paired_ratio(samples, milliseconds[reference])
            summary[name] |= {"ratio_to_minidl": median, "ratio_quartiles": [low, high]}
    return summary


def reference_of(measured: dict) -> str | None:
    return next((name for name in REFERENCES if name in measured), None)


def paired_ratio(samples: list[float], others: list[float]) -> list[float]:
    return quartiles([a / b for a, b in zip(samples, others, strict=True)])


def fastest(medians: dict[str, float], apart_from: tuple[str, ...]) -> str | None:
    others = {name: median for name, median in medians.items() if name not in apart_from}
    return min(others, key=others.get) if others else None


def headlines(results: dict) -> list[str]:
    """The comparisons that count, as medians of paired ratios with quartiles: below 1, minidl is ahead."""
    lines = []
    for batch_size, measured in results["steps"].items():
        lines += against_the_fastest(f"Batch {int(batch_size):,}", measured["milliseconds"])
    if results.get("whole_job"):
        lines += whole_job_headlines(results["whole_job"])
    imports = results["import_milliseconds"]
    if "minidl" in imports:
        lines.append(f"`import minidl` / `import numpy` = {imports['minidl'] / imports['numpy']:.2f}.")
    return lines


def whole_job_headlines(jobs: dict) -> list[str]:
    lines = against_the_fastest("Whole job", {name: job["seconds"] for name, job in jobs.items()})
    losses = [loss for job in jobs.values() for loss in job["validation_loss"]]
    if losses:
        lines.append(f"Whole job: last validation losses {min(losses):.4f} to {max(losses):.4f}.")
    return lines


def against_the_fastest(what: str, samples: dict[str, list[float]]) -> list[str]:
    """minidl against the fastest that is not minidl, and against the fastest framework if that is another.

    Only what computes in the same precision is compared.
    """
    lines = []
    for ours in (name for name in REFERENCES if name in samples):
        medians = {
            name: statistics.median(values)
            for name, values in samples.items()
            if precision_of(name) == precision_of(ours)
        }
        opponents = [fastest(medians, REFERENCES), fastest(medians, (*REFERENCES, "numpy_static"))]
        for opponent in dict.fromkeys(filter(None, opponents)):
            low, median, high = paired_ratio(samples[ours], samples[opponent])
            names = f"{PEERS[ours].title} / {PEERS[opponent].title}"
            lines.append(f"{what}: {names} = {median:.2f} ({low:.2f} to {high:.2f}).")
    return lines


def precision_of(name: str) -> str:
    return PEERS[name].options.get("precision", "float32")


def markdown(results: dict) -> str:
    """The table for the README: a row a peer, what it is, and one line per comparison that counts."""
    machine = results["machine"]
    load = [measured["foreign_load_cores"] for measured in results["steps"].values()]
    versions = ", ".join(f"{package} {version}" for package, version in results["versions"].items())
    return "\n".join(
        [
            *table(results),
            "",
            "Time per training step (median of rounds; in brackets the median of its ratios to "
            f"{PEERS[results['reference']].title} in the same round)."
            if results["reference"]
            else "",
            "",
            *(f"- {line}" for line in headlines(results)),
            "",
            f"{results['date']}; {hardware(machine)}, "
            f"{machine['memory_gib']} GiB; Python {machine['python']}, {versions}; "
            f"{results['rounds']} rounds; other work kept {max(load, default=0):.2f} cores busy.",
            "",
        ]
    )


def hardware(machine: dict) -> str:
    """The GPU, where one was used, and the processor."""
    card = f"{machine['card']}; " if machine.get("card") else ""
    return f"{card}{machine['processor']}, {machine['cores']} cores"


def table(results: dict) -> list[str]:
    columns = [f"batch {int(batch_size):,}" for batch_size in results["steps"]]
    columns += ["whole job", "peak memory"] if results.get("whole_job") else []
    columns += FIRST_CALLS if results["first_call_seconds_without_cache"] else []
    columns += ["import"] if results["import_milliseconds"] else []
    rows = [
        f"| {PEERS[name].title} | " + " | ".join(cells(results, name)) + " |" for name in results["peers"]
    ]
    return ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns), *rows]


def cells(results: dict, name: str) -> list[str]:
    row = [step_cell(measured["summary"].get(name)) for measured in results["steps"].values()]
    if results.get("whole_job"):
        job = results["whole_job"].get(name)
        row.append(f"{statistics.median(job['seconds']):.1f} s" if job else ABSENT)
        row.append(f"{statistics.median(job['peak_memory_mib']):.0f} MiB" if job else ABSENT)
    if results["first_call_seconds_without_cache"]:
        row += first_call_cells(results, name)
    if results["import_milliseconds"]:
        milliseconds = results["import_milliseconds"].get(PEERS[name].imports)
        row.append(f"{milliseconds:.0f} ms" if milliseconds is not None else ABSENT)
    if name in results["left_out"] and ABSENT in row:
        row[row.index(ABSENT)] = results["left_out"][name]
    return row


FIRST_CALLS = ["first step, empty cache", "first step", "memory of steps"]


def first_call_cells(results: dict, name: str) -> list[str]:
    """Of the first batch size; memory is the most over all of them."""
    cold = results["first_call_seconds_without_cache"].get(name)
    measured = list(results["steps"].values())
    warm = measured[0]["first_call_seconds"].get(name)
    memory = [entry["peak_memory_mib"][name] for entry in measured if name in entry["peak_memory_mib"]]
    seconds = [f"{value:.2f} s" if value is not None else ABSENT for value in (cold, warm)]
    return [*seconds, f"{max(memory):.0f} MiB" if memory else ABSENT]


def step_cell(summary: dict | None) -> str:
    if summary is None:
        return ABSENT
    ratio = f" ({summary['ratio_to_minidl']:.2f})" if "ratio_to_minidl" in summary else ""
    digits = 2 if summary["median"] >= 1 else 3
    return f"{summary['median']:.{digits}f} ms{ratio}"


def plot_steps(results: dict, path: Path) -> None:
    """One panel a batch size: time per step, fastest on top, quartiles as whiskers."""
    panels = []
    for batch_size, measured in results["steps"].items():
        bars = {name: (entry["median"], entry["quartiles"]) for name, entry in measured["summary"].items()}
        number = "{:.1f}" if results["device"] == "cpu" else "{:.3f}"
        panels.append((f"Batch {int(batch_size):,}", "milliseconds a step", number, bars))
    if results["first_call_seconds_without_cache"] and results["job"] != "autoencoder":
        panels += first_call_panels(results)
    title = f"One training step of the {jobs.load(results['job']).TITLE}"
    plot_bars(title, panels, results, path)


def first_call_panels(results: dict) -> list[tuple]:
    (measured,) = results["steps"].values()
    cold = results["first_call_seconds_without_cache"]
    cold = {name: cold[name] for name in measured["summary"] if name in cold}
    memory = {name: measured["peak_memory_mib"][name] for name in measured["summary"]}
    panels = []
    for title, unit, number, values in (
        ("First step, with an empty cache", "seconds", "{:.1f}", cold),
        ("Peak memory", "MiB more than after the import", "{:.0f}", memory),
    ):
        panels.append((title, unit, number, {name: (value, [value] * 2) for name, value in values.items()}))
    return panels


def plot_whole_jobs(results: dict, path: Path) -> None:
    """Time and memory of the whole job, and import times."""
    seconds, memory, imports = {}, {}, {}
    for name, job in results["whole_job"].items():
        for target, key in ((seconds, "seconds"), (memory, "peak_memory_mib")):
            low, median, high = quartiles(job[key])
            target[name] = (median, [low, high])
        milliseconds = results["import_milliseconds"].get(PEERS[name].imports)
        if milliseconds is not None:
            imports[name] = (milliseconds, [milliseconds, milliseconds])
    panels = [
        (
            f"Whole job, {results['epochs']} epochs",
            "seconds, process start to saved weights",
            "{:.1f}",
            seconds,
        ),
        ("Peak memory of the whole job", "MiB", "{:.0f}", memory),
        ("Import", "milliseconds more than bare Python", "{:.0f}", imports),
    ]
    panels = [panel for panel in panels if panel[-1]]  # on a GPU, imports are not measured
    plot_bars("The whole job of the tied autoencoder", panels, results, path)


def plot_bars(title: str, panels: list[tuple], results: dict, path: Path) -> None:
    """Horizontal bars; `panels` hold a title, a unit, a format and, by peer, the median and its quartiles."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    most = max(len(bars) for *_, bars in panels)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5.2 * len(panels), 1.5 + 0.36 * most), layout="constrained", squeeze=False
    )
    for axis, panel in zip(axes[0], panels, strict=True):
        draw_panel(axis, *panel)
    machine = results["machine"]
    figure.suptitle(f"{title}: {hardware(machine)}", fontsize=12)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_panel(axis, title: str, unit: str, number: str, bars: dict) -> None:
    names = sorted(bars, key=lambda name: bars[name][0])
    medians = [bars[name][0] for name in names]
    whiskers = [
        [median - bars[name][1][0] for name, median in zip(names, medians, strict=True)],
        [bars[name][1][1] - median for name, median in zip(names, medians, strict=True)],
    ]
    colours = [COLOURS.get(name, OTHERS) for name in names]
    rows = range(len(names))
    axis.barh(rows, medians, color=colours, xerr=whiskers, ecolor="#334155", error_kw={"linewidth": 1})
    for row, name in enumerate(names):
        text = " " + number.format(medians[row])
        axis.text(bars[name][1][1], row, text, va="center", fontsize=9)
    axis.set_yticks(rows, [PEERS[name].title for name in names], fontsize=9)
    for label, name in zip(axis.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name in COLOURS else "normal")
    axis.invert_yaxis()
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(unit, fontsize=9)
    axis.set_xlim(0, 1.15 * max((entry[1][1] for entry in bars.values()), default=1))
    axis.spines[["top", "right"]].set_visible(False)
