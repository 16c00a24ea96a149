import gc

import pytest
from dropin_kit import Service

from speechpool import dashscope
from speechpool.dashscope.callbacks import workers
from speechpool.dashscope.pools import shared
from speechpool.synthesis.loop_thread import loop_thread


@pytest.fixture(scope="session", autouse=True)
def the_loop_of_the_process():
    # It lives as long as the process, so its descriptors belong to no test.
    return loop_thread.loop


@pytest.fixture(autouse=True)
def a_program_of_its_own(nothing_is_left_behind, monkeypatch):
    for name in ("DASHSCOPE_API_KEY", "DASHSCOPE_API_REGION", "DASHSCOPE_WEBSOCKET_BASE_URL", "DASHSCOPE_WORKSPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    dashscope.api_key = "key"
    yield
    for name in dashscope.__all__:
        vars(dashscope).pop(name, None) if name != "set_region" else None
    loop_thread.run(shared.close)
    gc.collect()


@pytest.fixture(scope="module")
def marker():
    """A service that is in order, shared by the tests of a module."""
    service = Service()
    yield service
    service.close()


@pytest.fixture
def service(marker):
    """The same, as the one that `dashscope.base_websocket_api_url` names."""
    dashscope.base_websocket_api_url = marker.url
    return marker


@pytest.fixture
def fresh_workers(monkeypatch):
    """No worker thread of an earlier test takes any work; they end by themselves."""
    monkeypatch.setattr(workers, "_idle", [])
    return workers
