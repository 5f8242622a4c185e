"""PyTorch names a folder in the environment when its first optimizer is made; the tests name one before."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def folder_of_pytorch(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield
