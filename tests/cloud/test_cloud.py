"""Asks the real service what no document says; at most 200 characters are spoken. Run by `make test-cloud`.

Needs DASHSCOPE_API_KEY. SPEECHPOOL_CLOUD_URL chooses another region, or a local service; the facts go to
`cloud-facts.json`, or where SPEECHPOOL_CLOUD_FACTS says.
"""

import asyncio
import datetime as dt
import os
from pathlib import Path

import pytest
from cloud_facts import FACTS, NOT_SEEN, Fact, write
from cloud_probes import MODELS, PROBES
from cloud_wire import Cloud

pytestmark = pytest.mark.skipif("DASHSCOPE_API_KEY" not in os.environ, reason="DASHSCOPE_API_KEY is not set")


@pytest.fixture(scope="module")
def cloud():
    cloud = Cloud.from_environment()
    yield cloud
    write(FACTS, Path(os.environ.get("SPEECHPOOL_CLOUD_FACTS", "cloud-facts.json")))
    assert cloud.budget.spent <= cloud.budget.limit


@pytest.mark.parametrize("name", PROBES)
def test_the_service_answers(cloud, name):
    answers = asyncio.run(PROBES[name](cloud))
    assert answers, "the probe asked nothing"
    today = dt.datetime.now(dt.UTC).date().isoformat()
    for question, seen in answers.items():
        said = (seen or NOT_SEEN).replace(cloud.key, "***")
        FACTS.append(Fact(question, said, today, MODELS.get(name, cloud.model), cloud.url))
    if not any(answers.values()):
        pytest.skip(NOT_SEEN)
