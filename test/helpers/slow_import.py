# SPDX-License-Identifier: Apache-2.0
"""Libraries whose import takes longer than anybody waits, as on a machine that is very busy."""
from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys
import time

PATIENCE_S = 120.0  #: For what is answered at once, on a machine where even that takes its time

# One call of C code that looks at no signal, as loading a shared library is.
_SLOW = """import sys
print('importing', file=sys.stderr, flush=True)
sum(range(10**13))
"""


def make_slow(folder: Path, library: str) -> dict[str, str]:
    """Put a library into `folder` that shadows the real one; return the environment with it."""
    (folder / f'{library}.py').write_text(_SLOW)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get('PYTHONPATH')])])
    return {**os.environ, 'PYTHONPATH': path}


def signalled_while_importing(command: list[str], environment: dict[str, str], number: int
                              ) -> tuple[int, str]:
    """
    Start Python with `command`, send a signal while the slow library is imported.

    Returns the exit code and what was said on stderr; raises TimeoutExpired when it goes on.
    """
    process = subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line == 'importing\n':
                break
        assert said and said[-1] == 'importing\n', ''.join(said)
        time.sleep(0.2)  # It is in the one call by then, most likely.
        process.send_signal(number)
        _, rest = process.communicate(timeout=PATIENCE_S)
        return process.returncode, ''.join(said) + rest
    finally:
        process.kill()
        process.wait()
