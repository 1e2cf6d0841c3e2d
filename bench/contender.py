"""The process of one contender: `python -m bench.contender MODULE:FUNCTION SETTINGS`. Started by `common.run_contender`.

standard input    nothing
SETTINGS          one JSON object, the keyword arguments of the function
standard output   whatever libraries print; the last line is the returned dict as JSON:
                  {"images_per_second": 55.1, "lowest": 54.8, "highest": 55.3}, or {"error": "ValueError: ..."}
"""

import importlib
import json
import sys
import traceback
from typing import Any


def main() -> int:
    function, settings = sys.argv[1], json.loads(sys.argv[2])
    result = call(function, settings)
    print("\n" + json.dumps(result), flush=True)
    return 1 if "error" in result else 0


def call(function: str, settings: dict[str, Any]) -> dict[str, Any]:
    module, name = function.split(":")
    try:
        return dict(getattr(importlib.import_module(module), name)(**settings))
    except Exception as error:
        traceback.print_exc()
        first_line = (str(error).splitlines() or [""])[0]
        return {"error": f"{type(error).__name__}: {first_line}"}


if __name__ == "__main__":
    sys.exit(main())
