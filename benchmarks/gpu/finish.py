"""Every stage of an experiment that the store lacks, without a report; or ``--pack FILE``: what is finished,
to one file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from repro import environment
from repro.device import device_of
from repro.errors import SettingError
from repro.execution import stages
from repro.experiments import build
from repro.pretrain import cost
from repro.settings.compose import compose
from repro.store import Store
from repro.store.pack import pack


def main() -> int:
    """Exit 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path)
    parser.add_argument("settings", nargs="+")
    given = parser.parse_args()
    try:
        settings = cost.sized(compose(given.settings))
        store, device = Store(Path(settings.work)), device_of(settings.device)
        if given.pack:
            found, endpoint = build(settings).order(), settings.exp.endpoint
            content = pack(store, found, given.pack, "single", 64, 1e9, level=9, endpoint=endpoint)
            size = given.pack.stat().st_size / 1e6
            print(f"{given.pack.name}: {len(content['artifacts'])} stages, {size:.1f} MB", flush=True)
            return 0
        share = stages.share(settings, device)
        with environment.variables(share.variables):
            stages.carry_out(settings, store, device, share)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
