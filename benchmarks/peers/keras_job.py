"""What Keras's peers of all jobs share: the custom training loop of its guide on JAX, one jitted step."""

import os

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from functools import partial

import jax
import jax.numpy as jnp
import keras

from benchmarks.peers import Job


def make_job(network, optimizer) -> Job:
    """A built network that gives logits, trained with softmax cross-entropy."""
    optimizer.build(network.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss_of(parameters, others, x, target):
        logits, others = network.stateless_call(parameters, others, x, training=True)
        return cross_entropy(target, logits), others

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def train_step(parameters, others, state, x, target):
        compute = jax.value_and_grad(loss_of, has_aux=True)
        (loss, others), gradients = compute(parameters, others, x, target)
        parameters, state = optimizer.stateless_apply(state, gradients, parameters)
        return parameters, others, state, loss

    parameters = [variable.value for variable in network.trainable_variables]
    others = [variable.value for variable in network.non_trainable_variables]
    state = [variable.value for variable in optimizer.variables]

    def step(batch):
        nonlocal parameters, others, state
        parameters, others, state, loss = train_step(parameters, others, state, *batch)
        jax.block_until_ready(parameters)
        return float(loss)

    return Job(prepare=lambda batch: tuple(map(jnp.asarray, batch)), step=step)
