"""`python -m benchmarks`: every benchmark there is, as one table or one JSON object.

python -m benchmarks [--json] [--quick] [--only NAME] [--keep FILE]
"""

import sys
from collections.abc import Sequence

from benchmarks import mesh, wire


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the wire format, then the mesh; return 0."""
    given = mesh.parser().parse_args(arguments)
    figures = {} if given.only else wire.measure(200 if given.quick else 2000)
    found = mesh.measure_as(given)
    mesh.show({**found, "figures": {**figures, **found["figures"]}}, as_json=given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
