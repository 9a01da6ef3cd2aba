"""What somebody who starts several processes of one run, such as torchrun, says to each of them; free of torch."""

import os
import socket

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # the contract of env://


def started_together() -> bool:
    """Whether somebody has started this process as one of several."""
    return all(os.environ.get(name) for name in VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def silent() -> bool:
    """Whether this process leaves what there is to say to another one."""
    return started_together() and os.environ["RANK"] != "0"


def job() -> str | None:
    """What started this process with others, and starts them anew when one has died; None where nobody did."""
    if not started_together():
        return None
    named = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if named != "none":
        return named
    import psutil

    parent = psutil.Process(os.getppid())  # torchrun, unless it was given a name
    return f"{socket.gethostname()} {parent.pid} {parent.create_time():.0f}"


def restarted() -> bool:
    """Whether this process is a later attempt of its job."""
    return started_together() and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def starter() -> str:
    """What stands before a command that is to be started in the same way, on this machine."""
    if not started_together():
        return ""
    here, all_of_them = os.environ.get("LOCAL_WORLD_SIZE", "1"), os.environ["WORLD_SIZE"]
    nodes = "" if here == all_of_them else f" --nnodes {os.environ.get('GROUP_WORLD_SIZE', '…')}"
    return f"torchrun{nodes} --nproc-per-node {here} -m "
