"""Libraries set environment variables of their own when they are first used; the tests do it before."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def variables_of_libraries(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
        patch.setenv("TPU_SKIP_MDS_QUERY", "1")
        patch.setenv("CRC32C_SW_MODE", "auto")
        patch.setenv("KMP_INIT_AT_FORK", "FALSE")
        patch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        yield
