import pytest

import minidl as dl

FULL_BATCH = [dl.LBFGS, dl.ConjugateGradient]
OPTIMIZERS = [dl.SGD, dl.RMSProp, dl.Adam, dl.AdamW, dl.Nadam, dl.Adagrad, *FULL_BATCH]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_parameter_that_is_listed_twice_is_trained_once(make):
    one, two = dl.Parameter([1.0]), dl.Parameter([2.0])
    assert make([one, two, one]).parameters == [one, two]


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize(
    ("parameters", "options", "error", "message"),
    [
        ([], {}, ValueError, "got no parameters to train"),
        ([dl.zeros(2)], {}, TypeError, "trains Parameters, got Tensor"),
        ([dl.Parameter([1.0])], {"l2": -1}, ValueError, "l2 must not be negative, got -1"),
        ([dl.Parameter([1.0])], {"l2": float("nan")}, ValueError, "l2 must not be negative, got nan"),
    ],
)
def test_bad_arguments_are_refused(make, parameters, options, error, message):
    with pytest.raises(error, match=f"{make.__name__}.*{message}"):
        make(parameters, **options)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_zero_grad_drops_all_gradients(make):
    free, frozen = dl.Parameter([1.0]), dl.Parameter([2.0], learning_rate_factor=0)
    optimizer = make([free, frozen])
    (free * frozen).sum().backward()
    optimizer.zero_grad()
    assert free.grad is None
    assert frozen.grad is None


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_what_a_trainer_asks_for(make):
    optimizer = make([dl.Parameter([1.0])], l2=0.5)
    assert optimizer.full_batch == (make in FULL_BATCH)
    assert optimizer.settings()["l2"] == 0.5
    assert ("learning_rate_schedule" in optimizer.settings()) != optimizer.full_batch
    assert optimizer.total_steps(70) == (optimizer.max_iterations if optimizer.full_batch else 70)
    assert optimizer.named_tensors()


def test_an_optimizer_shows_its_numbers():
    parameters = [dl.Parameter(dl.zeros(2)), dl.Parameter(dl.zeros(3))]
    shown = "SGD(2 Parameters, momentum=0.5, nesterov=False, l2=0.0, clip_norm=1)"
    assert repr(dl.SGD(parameters, momentum=0.5, clip_norm=1)) == shown
    assert repr(dl.SGD(parameters[:1])).startswith("SGD(1 Parameter, ")
