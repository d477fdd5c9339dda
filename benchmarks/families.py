"""Which model families can be a proxy: every tiny random model of the tests, exact or refused, as
docs/families.md.

    python -m benchmarks.families            # writes docs/families.md; half a minute, no download

The models, the oracle and the tolerance are those of tests/oracle/proxy_families.py, whose test compares with
this table.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs/families.md"

HEAD = """# Families of models

Any causal language model of transformers can be the proxy if its heads can be masked exactly. Whether they
can is found when it is loaded, by trying it on a few tokens (`repro/proxy/exact.py`); no family is known by
its name. What is not exact is refused in one line:

- every layer must hand its query heads to transformers' attention interface, one by one;
- given a zero query, the family's own attention must weigh all visible positions alike (no position bias,
  no sink), and otherwise it must be the softmax of scaled scores, soft-capped or not;
- which positions are visible must follow from positions alone (causal, windows, chunks), not from content;
- no position may depend on a later one; losses and hidden states must be those of the library.

Below are tiny random models (float32), made from the configurations of transformers {version}. *Exact*:
logits, hidden states and losses, with and without masked heads, in one pass forked at every layer and in
two, differ from an explicit softmax by at most {tolerance:.0e} of the largest entry. *Two passes*: rows
carry more than the hidden state between layers, so that the two models cannot share the layers below the
masked heads; scoring takes about a third longer.

{exact} families are exact, {refused} refused. `python -m benchmarks.families` makes this page, a test holds
it true.

| family | what is special | outcome | how scored, or why refused |
|---|---|---|---|
"""


def render() -> str:
    """The page."""
    sys.path.insert(0, str(ROOT / "tests/oracle"))
    import proxy_families as families
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    rows = [(name, about[0], *families.outcome(name)) for name, about in families.FAMILIES.items()]
    counts = {outcome: sum(row[2] == outcome for row in rows) for outcome in ("exact", "refused", "WRONG")}
    if counts["WRONG"]:
        raise SystemExit("\n".join(f"{row[0]}: {row[3]}" for row in rows if row[2] == "WRONG"))
    head = HEAD.format(version=transformers.__version__, tolerance=families.TOLERANCE, **counts)
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def read(page: Path) -> dict[str, tuple[str, str, str]]:
    """{family: (what is special, outcome, how or why)} of the page."""
    lines = page.read_text(encoding="utf-8").split("\n|---|---|---|---|\n")[1].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {name: (special, outcome, why) for name, special, outcome, why in rows}


if __name__ == "__main__":
    page = render()
    TARGET.write_text(page, encoding="utf-8")
