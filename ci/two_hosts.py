"""Two hosts on this machine, for ci/hosts.py and ci/faults.py. ci/netns.sh makes them."""

import contextlib
import os
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def netns(*words):
    return subprocess.run([f"{HERE}/netns.sh", *words], check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def two_hosts():
    """The hosts `one` and `two` while the block runs: their link's kind, or None if this machine does not allow them."""
    # The hosts go whatever ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.setdefault("XDIT_NETNS", f"xdit{os.getpid()}")
    up = subprocess.run([f"{HERE}/netns.sh", "up"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        if up.returncode == 3:
            print(f"two hosts: left out, {up.stderr.strip()}", flush=True)
            yield None
        elif up.returncode != 0:
            raise SystemExit(up.stderr)
        else:
            yield up.stdout.strip()
    finally:
        if up.returncode != 3:
            netns("down")


def mpirun():
    """The words that start two ranks on each host."""
    # The ranks must find each other by themselves: no variable says where rank 0 is.
    agent = f"{HERE}/netns.sh agent"
    # Open MPI 4 knows the first name, 5 the second.
    return [
        f"{HERE}/netns.sh", "on", "one", "env", f"OMPI_MCA_plm_rsh_agent={agent}", f"PRTE_MCA_plm_ssh_agent={agent}",
        "mpirun.openmpi", "-H", "one:2,two:2", "-n", "4", "--map-by", "ppr:2:node:oversubscribe",
    ]
