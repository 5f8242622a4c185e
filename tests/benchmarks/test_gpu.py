"""The benchmarks on a GPU: what can be known without one."""

import json

import numpy
import pytest

from benchmarks import machine, peers, report, run, steps
from benchmarks.jobs import autoencoder

pytestmark = pytest.mark.gpu_source


def test_without_a_gpu_one_sentence_says_so(monkeypatch):
    monkeypatch.setattr(machine, "card", lambda: None)
    with pytest.raises(SystemExit, match="--device gpu: there is no NVIDIA GPU on this machine"):
        run.main(["--device", "gpu"])


def test_the_card_is_named_as_nvidias_tool_names_it(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB, 580.159.03'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine.card() == "NVIDIA H200 (143771 MiB, driver 580.159.03)"


def test_each_device_has_its_own_peers_and_batches():
    assert all(name.startswith("gpu_") for name in run.parse_arguments(["--device", "gpu"]).peers)
    assert run.parse_arguments(["--device", "gpu"]).batch_sizes == [128, 1024, 8192]
    assert not any(name.startswith("gpu_") for name in run.parse_arguments([]).peers)


def blobs(rng, count):
    """Images that are smooth, as digits are: after noise, rounding grows much faster."""
    places = rng.uniform(8, 20, (2, count, 1, 1))
    rows, columns = numpy.arange(28)[:, None], numpy.arange(28)
    return numpy.exp(-((rows - places[0]) ** 2 + (columns - places[1]) ** 2) / 20)


def test_the_losses_agree(gpu, rng):
    batches = autoencoder.step_batches(autoencoder.as_rows(blobs(rng, 128)), 32)
    reference = autoencoder.reference_losses(batches)
    for name in ("gpu_minidl", "gpu_minidl_tf32", "gpu_minidl_bfloat16", "gpu_minidl_eager"):
        job = peers.load(name)(autoencoder.initial_weights(), 32)
        prepared = [job.prepare(batch) for batch in batches]
        losses = [float(job.step(prepared[i % len(prepared)])) for i in range(autoencoder.CHECKED_STEPS)]
        job.wait()
        assert steps.largest_difference(losses, reference) < peers.PEERS[name].tolerance, name


def test_each_precision_is_compared_with_its_own_kind():
    samples = {
        "gpu_minidl": [0.2, 0.2],
        "gpu_minidl_bfloat16": [0.1, 0.1],
        "gpu_torch_graph": [0.25, 0.25],
        "gpu_torch_compile": [0.3, 0.3],
        "gpu_torch_graph_bfloat16": [0.05, 0.05],
    }
    assert report.against_the_fastest("Batch", samples) == [
        "Batch: minidl compiled / PyTorch, CUDA graph by hand = 0.80 (0.80 to 0.80).",
        "Batch: minidl compiled, bfloat16 / PyTorch, CUDA graph by hand, bfloat16 = 2.00 (2.00 to 2.00).",
    ]


def test_results_are_written_and_name_the_card(tmp_path):
    samples = {"gpu_minidl": [0.2, 0.21, 0.2], "gpu_torch_graph": [0.25, 0.24, 0.26]}
    step = {
        "milliseconds": samples,
        "summary": report.summarise_steps(samples),
        "foreign_load_cores": 0.0,
    }
    results = {
        "date": "2026-01-01",
        "job": "autoencoder",
        "device": "gpu",
        "first_call_seconds_without_cache": {},
        "machine": {"processor": "P", "cores": 2, "memory_gib": 1, "python": "3", "card": "NVIDIA X"},
        "versions": {"torch": "2"},
        "peers": [*samples, "gpu_jax"],
        "reference": "gpu_minidl",
        "rounds": 3,
        "steps": {"128": step},
        "import_milliseconds": {},
        "left_out": {"gpu_jax": "not installed"},
    }
    run.write(results, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu-steps.png", "gpu.json", "gpu.md"]
    text = (tmp_path / "gpu.md").read_text()
    assert "NVIDIA X; P, 2 cores" in text
    assert "| minidl compiled | 0.200 ms (1.00) |" in text
    assert "| JAX jit + optax | not installed |" in text
    assert json.loads((tmp_path / "gpu.json").read_text())["steps"]["128"]["milliseconds"] == samples


def test_whole_jobs_are_measured_on_a_gpu_too(tmp_path):
    job = {"seconds": [3.0, 3.2], "peak_memory_mib": [500.0, 510.0], "validation_loss": [0.09, 0.09]}
    results = {
        "device": "gpu",
        "machine": {"processor": "P", "cores": 2, "card": "NVIDIA X"},
        "import_milliseconds": {},
        "epochs": 30,
        "whole_job": {"gpu_minidl": job, "gpu_torch_fused": job | {"seconds": [9.0, 8.0]}},
    }
    report.plot_whole_jobs(results, tmp_path / "jobs.png")
    assert (tmp_path / "jobs.png").stat().st_size > 10_000
    (line, *_) = report.whole_job_headlines(results["whole_job"])
    assert line == "Whole job: minidl compiled / PyTorch eager, fused Adam = 0.37 (0.35 to 0.38)."
