"""What the tests of the training share."""

import numpy

from minidl.errors import CheckpointError

#: Options of fit() for tests that look at no output.
QUIET = {"verbose": False}


def assert_same_weights(one, other):
    states = one.network.state_dict(), other.network.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        numpy.testing.assert_array_equal(states[1][name], array, err_msg=name)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def resume(make_trainer, data, folder, **options):
    trainer = make_trainer(**options)
    before = trainer.network.state_dict()
    try:
        trainer.fit(*data, epochs=2, checkpoint_folder=folder, resume=True, **QUIET)
    except CheckpointError:
        for name, array in trainer.network.state_dict().items():
            numpy.testing.assert_array_equal(before[name], array)
        raise
