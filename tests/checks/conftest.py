import pytest

from minidl.primitives.primitive import PRIMITIVES


@pytest.fixture(autouse=True)
def primitives_of_this_test_alone():
    before = dict(PRIMITIVES)
    yield
    PRIMITIVES.clear()
    PRIMITIVES.update(before)
