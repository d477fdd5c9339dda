"""Names for plain values whose keys are not ours to know. What we make and read ourselves has types of its
own: dataclasses, and ``TypedDict`` where it is written as JSON (``repro.outcomes.outcome``).
"""

from typing import Any

Json = dict[str, Any]  # an object as JSON or YAML holds it: settings as given, what another program says
Row = dict[str, Any]  # of a table: the columns are those of the data, or of the schema beside it
