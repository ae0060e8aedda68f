"""Starts a notebook's kernel so that it ends with the process that asked for it, even when that one is killed.

Jupyter gives each kernel a session of its own, so a SIGKILL sent to a run's process group does not reach it, and it
would go on writing beside the next run. On Linux the system itself ends the kernel with its parent.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Ask the system to kill this process when the one that started it ends (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Become an IPython kernel: `python -m helpers.kernel -f <connection file>`."""
    end_with_parent()
    if os.getppid() != int(os.environ.get("JPY_PARENT_PID") or os.getppid()):
        sys.exit("the process that started this kernel has ended")
    from ipykernel import kernelapp

    # Jupyter interrupts a kernel before it shuts it down, which would be logged as an error each time.
    kernelapp.launch_new_instance([*sys.argv[1:], "--IPKernelApp.log_level=50"])


if __name__ == "__main__":
    main()
