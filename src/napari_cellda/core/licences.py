"""Names of licences, as SPDX lists them and bioimage.io takes them."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def licence_names() -> frozenset[str]:
    """Return the names that are not outdated; none where bioimageio.spec keeps no list of them.

    Its list is read as a file: to import it takes seconds.
    """
    found = find_spec("bioimageio.spec")
    names: list[str] = []
    if found is not None and found.origin is not None:
        with suppress(OSError):
            path = Path(found.origin).parent / "static" / "spdx_licenses.json"
            entries = json.loads(path.read_text("utf-8"))["licenses"]
            names = [e["licenseId"] for e in entries if not e["isDeprecatedLicenseId"]]
    return frozenset(names)
