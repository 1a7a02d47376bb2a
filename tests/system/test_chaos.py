"""A small run of `make chaos`: what it proves is in tests/system/chaos."""

from __future__ import annotations

import random

import pytest
from tests.system.chaos.run import Plan, chaos

pytestmark = [pytest.mark.postfix, pytest.mark.postgres]


async def test_mail_is_neither_lost_nor_doubled_nor_refused() -> None:
    plan = Plan(messages=72, unknown=72, seed=random.randrange(1 << 32))
    outcome = await chaos(plan)
    assert outcome.wrong == [], f"{plan}\n{outcome.log}"
    assert len(outcome.tally.accepted) == plan.messages
    refused = [one for one in outcome.tally.probes if one.kind == "5xx"]
    assert len(refused) == plan.unknown
