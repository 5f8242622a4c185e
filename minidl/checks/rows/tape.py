"""Whether a layer computes the same whether or not the tape is on."""

from __future__ import annotations

from minidl.checks.layer_run import LayerRun, Problem, Skip
from minidl.checks.rows.values import all_equal, difference, near
from minidl.mode import no_grad


def without_tape(run: LayerRun) -> None:
    """no_grad() changes no output"""
    for training in (False, True):
        expected = run.from_the_start(run.observations(), training)
        if not all_equal(expected, run.from_the_start(run.observations(), training)):
            raise Skip("the outputs are not repeatable")
        try:
            with no_grad():
                found = run.from_the_start(run.observations(), training)
        except Exception as error:
            raise Problem(
                f"under no_grad(), {type(error).__name__}: {error}; a forward that differentiates does "
                "so in a "
                "`with dl.enable_grad():` block"
            ) from error
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            run.compared += a.size
            if not near(a, b, 1e-6):
                raise Problem(
                    f"output {i} differs by {difference(a, b):.2g} under no_grad(): forward asks whether "
                    "gradients are recorded, where it should ask self.training, or differentiates outside of "
                    "a `with dl.enable_grad():` block"
                )
