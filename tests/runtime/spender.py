"""A process that spends from a shared budget: `python -m tests.runtime.spender FILE AGENT LIMIT CALLS [hold]`.

Each call reserves 0.03 to 0.05, looks at the sums, and settles less. It prints the largest sum it saw, what it settled,
and how often it was refused. With `hold` it reserves once, says so, and waits to be killed.
"""

from __future__ import annotations

import json
import random
import sys
import time
import uuid
from pathlib import Path

from runtime.budget_store import Amount, BudgetStore, Limits


def main() -> None:
    path, agent, limit, calls = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
    store = BudgetStore(path, agent, uuid.uuid4().hex)
    limits = Limits(usd=limit)
    if sys.argv[5:] == ["hold"]:
        refused, _ = store.reserve("held", Amount(0.05, 100), Limits(), limits)
        print(json.dumps({"refused": refused is not None}), flush=True)
        time.sleep(600)
    dice = random.Random(agent)
    most, settled, refusals = 0.0, 0.0, 0
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(calls):
        id = uuid.uuid4().hex
        bound = dice.uniform(0.03, 0.05)
        refused, standing = store.reserve(id, Amount(bound, 1000), Limits(), limits)
        most = max(most, standing.cluster.spent_usd + standing.cluster.reserved_usd)
        if refused is not None:
            refusals += 1
            continue
        cost = bound * dice.uniform(0.3, 1.0)
        if dice.random() < 0.2:
            store.release(id)
            continue
        store.settle(id, Amount(cost, 900))
        store.settle(id, Amount(cost, 900))  # a repeat changes nothing
        settled += cost
    print(json.dumps({"most": most, "settled": settled, "refusals": refusals}), flush=True)


if __name__ == "__main__":
    main()
