"""The rows of check_layer in the order of the report, and which failures explain which others."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from minidl.checks.layer_run import LayerRun
from minidl.checks.rows.compiling import compiling
from minidl.checks.rows.composing import nesting, sharing
from minidl.checks.rows.finite import finite_outputs
from minidl.checks.rows.gradients import gradients_agree, gradients_exist, second_order
from minidl.checks.rows.inputs import independence, inputs_left_alone
from minidl.checks.rows.parameters import parameters_found
from minidl.checks.rows.precision import float32_agrees
from minidl.checks.rows.primitives import own_primitives
from minidl.checks.rows.randomness import global_state
from minidl.checks.rows.saving import saving, training_is_saved
from minidl.checks.rows.signatures import signatures
from minidl.checks.rows.sizes import one_observation, output_sizes, several_observations
from minidl.checks.rows.state import evaluation_state, finite_state, growth, repeatability, training_state
from minidl.checks.rows.tape import without_tape
from minidl.checks.rows.types import float32, float64, gpu, output_types

Test = Callable[[LayerRun], str | None]


@dataclass(frozen=True)
class Row:
    """One test of a layer.

    Attributes
    ----------
    test : returns a remark or None, or raises Problem or Skip; its docstring is the title
    because_of : tests whose failure explains a failure of this one, which is then not told a second time
    compares : whether it compares numbers, so that it fails if it found none to compare
    """

    test: Test
    because_of: tuple[Test, ...] = ()
    compares: bool = False

    @property
    def title(self) -> str:
        """What the report calls the row."""
        return title_of(self.test)


def title_of(test: Test) -> str:
    """Return what the report calls a test."""
    return str(inspect.getdoc(test))


#: The rows without which the others make no sense.
BASIC = (
    Row(signatures),
    Row(one_observation, (signatures,)),
    Row(several_observations, (signatures, one_observation)),
)
_CALLS = (global_state, inputs_left_alone, without_tape)
#: The rows that see the layer as it came.
AS_GIVEN = (
    Row(output_sizes),
    Row(output_types),
    Row(inputs_left_alone, compares=True),
    Row(global_state),
    Row(without_tape, (global_state, inputs_left_alone), compares=True),
    Row(training_state, _CALLS),
    Row(finite_state, _CALLS),
    Row(finite_outputs, (*_CALLS, finite_state), compares=True),
)
_CHANGING = (*_CALLS, training_state, evaluation_state, repeatability)
_BACKWARD = (gradients_exist, gradients_agree)
#: The rows that see the layer away from where it starts: other Parameters, and state as training leaves it.
AWAY = (
    Row(evaluation_state, (*_CALLS, training_state)),
    Row(repeatability, (*_CALLS, training_state, evaluation_state), compares=True),
    Row(independence, _CHANGING, compares=True),
    Row(growth, (*_CALLS, training_state)),
    Row(parameters_found),
    Row(gradients_exist, (*_CALLS, parameters_found)),
    Row(float32, (output_types, gradients_exist)),
    Row(float64, (output_types, gradients_exist)),
    Row(
        gradients_agree,
        (
            *_CHANGING,
            training_state,
            parameters_found,
            gradients_exist,
            finite_state,
            finite_outputs,
            float64,
        ),
    ),
    Row(second_order, (*_CHANGING, *_BACKWARD, training_state, finite_outputs, float64)),
    Row(own_primitives, (*_CALLS, gradients_agree)),
    Row(saving, (*_CHANGING, gradients_agree)),
    Row(training_is_saved, (*_CHANGING, saving, training_state, *_BACKWARD)),
    Row(float32_agrees, (*_CHANGING, output_types, finite_outputs, float32, float64)),
    Row(gpu, _CHANGING),
    Row(nesting, _CHANGING, compares=True),
    Row(sharing, (*_CHANGING, saving, *_BACKWARD)),
    Row(
        compiling,
        (*_CHANGING, own_primitives, training_state, saving, training_is_saved, *_BACKWARD, growth),
    ),
)
ROWS = (*BASIC, *AS_GIVEN, *AWAY)
