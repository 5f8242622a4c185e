"""Generated kernels of the tests go to a folder of their own."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def kernels_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIDL_CACHE", str(tmp_path_factory.mktemp("kernels")))
        yield
