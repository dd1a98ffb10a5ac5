"""The program `autotune`, and `python -m autotune`. Before its commands are loaded and after they have ended, a signal
ends the process as it ends any other: at once, and without Python's traceback."""

from __future__ import annotations

import signal


def main() -> None:
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not after nohup
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from autotune.cli import main as program

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        program(prog_name="autotune")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
