"""No key and no spoken text in any log at info level or above, nor in an error."""

import logging

import pytest
from harness import VOICE, pool_and_server, run, settle

from speechpool import SpeechPoolError
from speechpool.protocol.cosyvoice import ContinueTask, RunTask


def test_t80_a_day_in_the_life_of_a_pool_says_neither_key_nor_text(caplog):
    caplog.set_level(logging.INFO)
    texts = []

    async def main():
        async with pool_and_server(retry=1) as (pool, server):
            await pool.synthesize("Canary words one.", VOICE)
            server.hooks[RunTask] = lambda session, _: session.fail("InternalError", "no") or True
            with pytest.raises(SpeechPoolError) as caught:
                await pool.synthesize("Canary words two.", VOICE)
            texts.append(repr(caught.value) + str(caught.value.__cause__))
            server.hooks.clear()
            server.hooks[ContinueTask] = lambda session, _: session.send(b"{broken canary words") or True
            with pytest.raises(SpeechPoolError) as caught:
                await pool.synthesize("Canary words three.", VOICE)
            texts.append(repr(caught.value))
            server.hooks.clear()
            async with pool.task(VOICE) as task:
                await task.send("Canary words four.")
            await settle()
            texts.extend([repr(pool), repr(pool.endpoint), repr(pool.stats), str(pool.report()), pool.explain()])

    run(main())
    logged = caplog.text + "".join(texts)
    assert "outcome=completed" in logged
    assert "outcome=failed" in logged
    assert "canary" not in logged.lower()
