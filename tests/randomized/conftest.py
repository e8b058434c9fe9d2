"""For all tests of the room."""

import pytest
import threadpoolctl


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Matrices of tests are too small for two threads of BLAS, which would wait for each other."""
    import scipy.linalg  # noqa: F401 - its BLAS has to be loaded to be limited

    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        yield
