"""For those who come from PyTorch, Keras and JAX: both sides of the tables give the same numbers."""

import os
import re
import warnings
from inspect import signature
from pathlib import Path

import numpy
import pytest

import minidl as dl

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
rng = numpy.random.default_rng(0)
ARRAYS = {
    "a": rng.normal(size=(5, 4)).astype("float32"),
    "b": rng.normal(size=(5, 4)).astype("float32"),
    "v": rng.normal(size=4).astype("float32"),
    "labels": numpy.array([0, 3, 1, 2, 2]),
}


def page(name):
    return (GUIDES / f"{name}.md").read_text()


def expressions(name):
    """Return the rows of the table under "Expressions": code of the other framework, and ours."""
    section = page(name).split("\n## Expressions\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(.*)` \| `(.*)` \|$", section, re.MULTILINE)
    assert len(rows) == section.count("\n| ") - 2  # heading and rule
    return rows


def blocks(name):
    """Return the two programs beside each other."""
    theirs, ours = re.findall(r"^```python\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE)
    return theirs, ours


def ours():
    """Return what expressions of minidl are evaluated with."""
    names = {key: dl.tensor(x, requires_grad=key != "labels") for key, x in ARRAYS.items()}
    return names | {"dl": dl, "f": lambda v: dl.exp(v).prod()}


def torchs():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra `oracle`)")
    names = {key: torch.tensor(x, requires_grad=key != "labels") for key, x in ARRAYS.items()}
    return names | {"torch": torch, "nn": torch.nn, "F": torch.nn.functional}


def keras():
    pytest.importorskip("torch", reason="PyTorch is not installed (the extra `oracle`)")
    module = pytest.importorskip("keras", reason="Keras is not installed (the extra `bench`)")
    names = {key: module.ops.convert_to_tensor(x) for key, x in ARRAYS.items()}
    return names | {"keras": module, "ops": module.ops, "losses": module.losses}


def jaxs():
    jax = pytest.importorskip("jax", reason="JAX is not installed (the extra `bench`)")
    optax = pytest.importorskip("optax", reason="Optax is not installed (the extra `bench`)")
    names = {key: jax.numpy.asarray(x) for key, x in ARRAYS.items()}
    return names | {"jax": jax, "jnp": jax.numpy, "optax": optax, "f": lambda v: jax.numpy.exp(v).prod()}


OTHERS = {"pytorch": torchs, "keras": keras, "jax": jaxs}


def as_numpy(x):
    x = x.detach() if hasattr(x, "detach") else x
    return x.numpy() if hasattr(x, "numpy") else numpy.asarray(x)


@pytest.fixture
def others_leave_nothing(monkeypatch):
    """Choose what Keras computes with; put back what the others change, and do not hear their warnings."""
    before = dict(os.environ)
    monkeypatch.setenv("KERAS_BACKEND", before.get("KERAS_BACKEND", "torch"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    monkeypatch.undo()
    for name in os.environ.keys() - before.keys():
        del os.environ[name]


@pytest.mark.oracle
@pytest.mark.parametrize("name", OTHERS)
def test_both_sides_of_each_row_give_the_same_numbers(name, others_leave_nothing):
    theirs, rows = OTHERS[name](), expressions(name)
    assert len(rows) > 10
    for there, here in rows:
        expected, found = as_numpy(eval(there, theirs)), eval(here, ours()).numpy()
        assert found.shape == expected.shape, here
        numpy.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5, err_msg=here)


@pytest.mark.parametrize("name", OTHERS)
def test_our_side_of_each_row_is_computed(name):
    for _, here in expressions(name):
        assert numpy.isfinite(eval(here, ours()).numpy()).all()


def data():
    rng = numpy.random.default_rng(1)
    return rng.normal(size=(48, 4)).astype("float32"), rng.integers(0, 3, 48)


def trained_with(code, weights):
    """Run our program with given weights; return the names that it leaves, ready for steps."""
    names = {"dl": dl, "x": data()[0], "y": data()[1]}
    first, rest = code.split("])\n", 1)
    exec(f"{first}])", names)
    for parameter, value in zip(names["network"].parameters(), weights, strict=True):
        parameter.assign(value)
    exec(rest, names)
    return names


def initial_weights():
    rng = numpy.random.default_rng(2)
    return [rng.normal(size=shape).astype("float32") * 0.5 for shape in ((4, 8), (8,), (8, 3), (3,))]


def assert_same_weights(names, expected):
    for parameter, value, before in zip(
        names["network"].parameters(), expected, initial_weights(), strict=True
    ):
        numpy.testing.assert_allclose(parameter.numpy(), value, rtol=1e-3, atol=1e-4)
        assert not numpy.array_equal(parameter.numpy(), before)


@pytest.mark.oracle
def test_the_training_beside_pytorchs_is_the_same(others_leave_nothing):
    names = torchs()
    torch = names["torch"]
    theirs, ours = blocks("pytorch")
    exec(theirs, names)
    weights, (x, y) = initial_weights(), data()
    with torch.no_grad():
        for parameter, value in zip(names["model"].parameters(), weights, strict=True):
            parameter.copy_(torch.tensor(value.T))
    mine = trained_with(ours, weights)
    for _ in range(5):
        names["step"](torch.tensor(x), torch.tensor(y))
        mine["step"](x, y)
    assert_same_weights(mine, [p.detach().numpy().T for p in names["model"].parameters()])


@pytest.mark.oracle
def test_the_training_beside_kerass_is_the_same(others_leave_nothing):
    names = keras()
    theirs, ours = blocks("keras")
    weights, (names["x"], names["y"]) = initial_weights(), data()
    model, rest = theirs.split("])\n", 1)
    exec(f"{model}])", names)
    names["model"].set_weights(weights)
    exec(rest, names)
    assert_same_weights(trained_with(ours, weights), names["model"].get_weights())


@pytest.mark.oracle
def test_the_training_beside_jaxs_is_the_same(others_leave_nothing):
    names = jaxs()
    theirs, ours = blocks("jax")
    weights, (x, y) = initial_weights(), data()
    names["parameters"] = list(map(names["jnp"].asarray, weights))
    exec(theirs, names)
    mine = trained_with(ours, weights)
    parameters, state = names["parameters"], names["state"]
    for _ in range(5):
        parameters, state, _ = names["step"](parameters, state, x, y)
        mine["step"](x, y)
    assert_same_weights(mine, list(map(numpy.asarray, parameters)))


def test_the_arguments_of_fit_that_kerass_page_names_exist():
    table = page("keras").split("## fit, evaluate, predict")[1].split("\n## ")[0]
    ours = [line.split(" | ")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {
        name
        for cell in ours
        for call in re.findall(r"fit\((.*?)\)", cell)
        for name in re.findall(r"(\w+)=", call)
    }
    assert len(named) > 8
    assert named <= set(signature(dl.Trainer.fit).parameters)
    network = dl.Network([dl.Dense(4, 3)])
    network.append(dl.ReLU())
    del network[-1]
    for cell in ours:
        for method in re.findall(r"`network\.(\w+)\(", cell):
            assert hasattr(network, method), method
        for method in re.findall(r"`trainer\.(\w+)\(", cell):
            assert hasattr(dl.Trainer, method), method
