import pytest

import minidl as dl


@pytest.mark.parametrize(
    ("name", "kind", "rate"),
    [("adam", dl.Adam, 0.001), ("rmsprop", dl.RMSProp, 0.001), ("sgdm", dl.SGD, 0.01)],
)
def test_solvers_by_name_have_the_defaults_of_matlab(make_trainer, name, kind, rate):
    optimizer = make_trainer(optimizer=name).optimizer
    assert type(optimizer) is kind
    assert optimizer.learning_rate.item() == rate
    assert optimizer.l2 == 1e-4
    if name == "sgdm":
        assert optimizer.momentum == 0.9
