"""`python -m tests.ranks OUT SETTING...`: a step of the tiny run in one process and in two.

Folders OUT/1 and OUT/2. The two ranks are forked before anything is computed and meet over gloo, so
that imports are paid for once; `torchrun` is another test's.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from pathlib import Path

from echovec.train.job import train
from echovec.train.run import read_run


def step(out: Path, settings: list[str]) -> None:
    """One step, into a folder that is named after the number of processes."""
    run = read_run("tiny").changed(["steps=1", "warmup_steps=0", *settings])
    train(run, out / os.environ.get("WORLD_SIZE", "1"))


def rank(number: int, port: int, out: Path, settings: list[str]) -> None:
    """What a launcher says to each process, and the steps."""
    os.environ |= {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    step(out, settings)


def main() -> int:
    """Zero if all of them came to their end."""
    import peft  # noqa: F401
    import sentence_transformers  # noqa: F401

    import echovec.train.trainer  # noqa: F401
    from echovec.train import page

    page._curve = lambda points: ""  # nobody looks at them
    out, settings = Path(sys.argv[1]), sys.argv[2:]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for number in range(2):
        child = os.fork()
        if not child:
            code = 1
            try:
                rank(number, port, out, settings)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    step(out, settings)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main())
