"""The benchmarks on a CPU: they run, write what they found, and notice a peer that computes other things."""

import json

import pytest

from benchmarks import jobs, peers, report, run, steps
from tests.program.networks import needs_c

FEW = {"cnn": "cnn_minidl_numpy,cnn_minidl_eager", "gpt": "gpt_minidl_numpy"}


@pytest.mark.parametrize("job", [pytest.param("cnn"), pytest.param("gpt", marks=pytest.mark.slow)])
def test_a_job_runs_and_is_written_down(job, tmp_path):
    names = FEW[job].split(",")
    assert run.main(["--job", job, "--quick", "--peers", FEW[job], "--output", str(tmp_path)]) == 0
    files = [f"cpu-{job}-steps.png", f"cpu-{job}.json", f"cpu-{job}.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    results = json.loads((tmp_path / f"cpu-{job}.json").read_text())
    assert results["job"] == job
    assert not results["left_out"]
    (measured,) = results["steps"].values()
    for name in names:
        assert measured["milliseconds"][name][0] > 0
        assert measured["largest_relative_difference_of_losses"][name] < jobs.load(job).TOLERANCE
        assert measured["peak_memory_mib"][name] > 1
        assert measured["first_call_seconds"][name] > 0
        assert results["first_call_seconds_without_cache"][name] > 0
    assert peers.PEERS[names[0]].title in (tmp_path / f"cpu-{job}.md").read_text()


@needs_c
@pytest.mark.slow
@pytest.mark.parametrize("job", ["cnn", "lstm", "gpt"])
def test_plain_compile_agrees_with_float64(job):
    what = jobs.load(job)
    batches = what.step_batches(None, what.BATCH_SIZES[0])
    peer = peers.load(f"{job}_minidl_compiled")(what.initial_weights(), what.BATCH_SIZES[0])
    prepared = [peer.prepare(batch) for batch in batches]
    losses = [peer.step(prepared[i % len(prepared)]) for i in range(jobs.CHECKED_STEPS)]
    assert (
        steps.largest_difference(losses, what.reference_losses(batches, jobs.CHECKED_STEPS)) < what.TOLERANCE
    )


def test_each_job_has_its_own_peers():
    assert run.parse_arguments(["--job", "lstm"]).batch_sizes == [20]
    for job in jobs.JOBS:
        names = run.parse_arguments(["--job", job]).peers
        assert names == peers.peers_of(job, "cpu")
        assert any(name.endswith("minidl_compiled") for name in names)
        assert all(name.startswith(job) or job == "autoencoder" for name in names)


def test_what_does_not_go_together_is_refused(capsys):
    for wrong, message in (
        (["--job", "cnn", "--whole-job"], "--job cnn has neither"),
        (["--job", "cnn", "--peers", "lstm_jax_jit"], "the peers of --job cnn"),
    ):
        with pytest.raises(SystemExit):
            run.parse_arguments(wrong)
        assert message in capsys.readouterr().err


def test_a_peer_whose_losses_differ_is_left_out():
    class Other:
        def ask(self, command, **arguments):
            if command == "build":
                return {"losses": [9.0] * arguments["checked"], "first_seconds": 1.0}
            raise AssertionError("it was timed")

        def close(self):
            pass

    problems, said = {}, []
    options = run.parse_arguments(["--job", "lstm", "--quick"])
    what = jobs.load("lstm")
    reference = [1.0] * jobs.QUICKLY_CHECKED_STEPS
    original, what.reference_losses = what.reference_losses, lambda batches, count: reference
    try:
        measured = steps.measure(
            options, {"lstm_jax_jit": Other()}, problems, None, 20, lambda text, end="": said.append(text)
        )
    finally:
        what.reference_losses = original
    assert problems == {"lstm_jax_jit": "losses differ by 8.0e+00 at batch 20"}
    assert not measured["milliseconds"]


def test_minidl_is_compared_with_the_fastest_of_the_others():
    samples = {"cnn_minidl_compiled": [1.0, 1.0], "cnn_torch_eager": [4.0, 4.0], "cnn_jax_jit": [8.0, 8.0]}
    assert report.against_the_fastest("Batch 128", samples) == [
        "Batch 128: minidl compiled / PyTorch eager = 0.25 (0.25 to 0.25)."
    ]
