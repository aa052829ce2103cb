#!/usr/bin/env python3
"""End to end: real processes, real sockets, real signals.

    tests/e2e/run.py --quorate target/release/quorate --etcdctl target/release/etcdctl

Needs Linux, root (for the check with network namespaces), curl, iproute2, a real etcd and etcdctl (Debian: etcd-server,
etcd-client), a Python with python-etcd, node with node-etcd, and the program of tests/clients/rust: `tests/run` sees to all
of it. What is missing fails its checks; nothing is skipped.
`--target etcd` runs the checks that a real etcd passes too against one, to see whether the checks are right.
"""

import argparse
import os
import shutil
import signal
import sys
import time
import traceback

import checks_keys  # noqa: F401  registers its checks, as the others
import checks_ttl  # noqa: F401
import checks_clients  # noqa: F401
import checks_real_clients  # noqa: F401
import checks_bootstrap  # noqa: F401
import checks_faults  # noqa: F401
import checks_disk  # noqa: F401
import checks_members  # noqa: F401
import checks_refusals  # noqa: F401
from checking import CHECKS, CheckFailed
from cluster import Context, use_ports


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quorate", metavar="PATH", help="the server")
    parser.add_argument("--etcdctl", metavar="PATH", help="our etcdctl")
    parser.add_argument("--real-etcd", metavar="PATH", default="etcd", help="a real etcd (default: the one in the PATH)")
    parser.add_argument("--real-etcdctl", metavar="PATH", default="/usr/bin/etcdctl", help="default: %(default)s")
    parser.add_argument("--node-modules", metavar="DIR", help="where node-etcd is installed")
    parser.add_argument("--rust-client", metavar="PATH", help="the program of tests/clients/rust")
    parser.add_argument("--target", choices=("quorate", "etcd"), default="quorate", help="what is checked")
    parser.add_argument("--only", metavar="NAME", action="append", help="only checks whose name begins so; may be repeated")
    parser.add_argument("--repeat", metavar="N", type=int, default=1, help="everything that many times")
    parser.add_argument("--scratch", metavar="DIR", type=os.path.abspath, help="where data directories go (default: the system's)")
    parser.add_argument("--ports", metavar="FIRST-LAST", default="20000-31999", help="that members may use (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="name the checks and end")
    arguments = parser.parse_args()
    if arguments.target == "quorate" and not arguments.quorate and not arguments.list:
        parser.error("--quorate is needed (or --target etcd)")
    try:
        first, last = map(int, arguments.ports.split("-"))
        use_ports(first, last + 1)
    except ValueError:
        parser.error(f"--ports: {arguments.ports!r} is not FIRST-LAST")
    return arguments


def program(path, wanted=True):
    """An absolute path: members run in directories of their own."""
    found = path and shutil.which(path)
    if path and wanted and not found:
        sys.exit(f"e2e: no program {path}")
    return os.path.abspath(found) if found else None


def too_long(_signal, _frame):
    raise CheckFailed("takes too long")


def run_one(name, function, timeout, programs, arguments):
    """One check with members of its own. Gives whether it passed."""
    started = time.monotonic()
    ctx = Context(programs, arguments.target, arguments.scratch)
    signal.alarm(timeout)
    try:
        function(ctx)
        signal.alarm(0)
        print(f"ok {name} ({time.monotonic() - started:.1f} s)" + "".join(f"; {note}" for note in ctx.notes), flush=True)
        return True
    except Exception as error:  # whatever it was, the other checks go on
        signal.alarm(0)
        print(f"FAILED {name} ({time.monotonic() - started:.1f} s): {error}")
        where = [frame for frame in traceback.extract_tb(error.__traceback__) if "checks_" in frame.filename]
        for frame in where[-3:]:
            print(f"    {os.path.basename(frame.filename)}:{frame.lineno}: {frame.line}")
        if not isinstance(error, CheckFailed):
            traceback.print_exc(file=sys.stdout)
        print("    " + ctx.evidence().replace("\n", "\n    "), flush=True)
        return False
    finally:
        signal.alarm(0)
        ctx.close()


def main():
    arguments = parse_arguments()
    checks = [entry for entry in CHECKS if arguments.target in entry[1]]
    if arguments.only:
        checks = [entry for entry in checks if any(entry[0].startswith(only) for only in arguments.only)]
        if not checks:
            sys.exit(f"e2e: no check begins with {' or '.join(arguments.only)}")
    if arguments.list:
        print("\n".join(entry[0] for entry in checks))
        return 0
    programs = {
        "quorate": program(arguments.quorate),
        "etcdctl": program(arguments.etcdctl),
        "etcd": program(arguments.real_etcd),
        "real-etcdctl": program(arguments.real_etcdctl),
        "node-modules": arguments.node_modules and os.path.abspath(arguments.node_modules),
        "rust-client": program(arguments.rust_client),
    }
    if arguments.target == "etcd" and not programs["etcdctl"]:
        checks = [entry for entry in checks if entry[0] != "etcdctl-ours"]
    signal.signal(signal.SIGALRM, too_long)
    # A kill of this script is an exit, so that members and namespaces go with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = [
        run_one(name, function, timeout, programs, arguments)
        for _ in range(arguments.repeat)
        for name, _, timeout, function in checks
    ]
    failed = results.count(False)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
