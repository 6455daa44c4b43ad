"""The reference of the relay's settings, `docs/reference/relay.md`, from the struct and the docstrings of its fields.

`python -m vivavoce.bridge.relay.settings_reference` prints it.
"""

from __future__ import annotations

import sys

from vivavoce.server.settings import PriceTable
from vivavoce.server.settings_reference import section
from vivavoce.server.sources import scalars

from .settings import PREFIX, RelaySettings

OPENING = """\
# Settings of the relay

One TOML file, `vivavoce relay --config FILE.toml`, or the file that `VIVAVOCE_RELAY_CONFIG` names. What the file says
is overridden by the environment, and that by the command line ([how to](../how-to/relay.md)).

Elements of lists in variables are separated by commas. Times are in milliseconds, sizes in bytes, as the names say.
"""


def relay_reference() -> str:
    """The whole page, as Markdown."""
    variables = {path: PREFIX + "__".join(path).upper() for path, _ in scalars(RelaySettings)}
    top = section("", RelaySettings, variables)
    return "\n".join((OPENING, top, section("prices.MODEL", PriceTable, {}).rstrip() + "\n"))


if __name__ == "__main__":
    sys.stdout.write(relay_reference())
