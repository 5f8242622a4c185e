"""The example's derivatives are right, it comes near the exact solution, and refuses bad arguments."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import minidl as dl

EXAMPLE = Path(__file__).parents[2] / "examples" / "physics_informed.py"


def example_module():
    specification = importlib.util.spec_from_file_location("physics_informed", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run(*arguments):
    return subprocess.run([sys.executable, EXAMPLE, *map(str, arguments)], capture_output=True, text=True)


def test_the_exact_solution_obeys_the_equation(rng):
    """Which tests both: the derivatives by differences, and those by dl.grad."""
    module = example_module()
    x, t = rng.uniform(0.1, 0.9, (2, 20, 1))
    h = 1e-4
    u = module.exact
    u_t = (u(x, t + h) - u(x, t - h)) / (2 * h)
    u_xx = (u(x + h, t) - 2 * u(x, t) + u(x - h, t)) / h**2
    numpy.testing.assert_allclose(u_t, module.CONDUCTIVITY * u_xx, atol=1e-5)
    numpy.testing.assert_allclose(u(x, 0), module.beginning(x))

    def of_tensors(x, t):
        return sum(
            a * dl.exp(-module.CONDUCTIVITY * (k * numpy.pi) ** 2 * t) * dl.sin(k * numpy.pi * x)
            for a, k in ((1, 1), (0.5, 3))
        )

    residual = module.equation(of_tensors, dl.tensor(x), dl.tensor(t))
    numpy.testing.assert_allclose(residual.numpy(), 0, atol=1e-12)
    wrong = module.equation(lambda x, t: x * x * t, dl.tensor(x), dl.tensor(t))
    numpy.testing.assert_allclose(wrong.numpy(), x * x - module.CONDUCTIVITY * 2 * t)


@pytest.mark.parametrize("eager", [[], ["--eager"]])
def test_a_short_run_comes_nearer(eager, tmp_path):
    result = run("--steps", 400, "--points", 64, "--hidden", 16, "--out", tmp_path, *eager)
    assert result.returncode == 0, result.stderr
    error = float(result.stdout.splitlines()[-1].split()[2].rstrip(","))
    assert error < 0.3
    assert (tmp_path / "solution.png").read_bytes().startswith(b"\x89PNG")
    assert example_module().Guess(16, 1).load(tmp_path / "weights.safetensors")


def test_bad_arguments_are_refused(tmp_path):
    for arguments, message in (
        (("--points", 3), "--points at least 4"),
        (("--device", "tpu"), "unknown device 'tpu'"),
    ):
        result = run(*arguments, "--out", tmp_path)
        assert result.returncode == 1
        assert message in result.stderr
