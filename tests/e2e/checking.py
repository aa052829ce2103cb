"""What a check is made of: expectations in words, patience, and the list of checks."""

import time


class CheckFailed(Exception):
    """What a check found wrong, in words."""


def expect(condition, message):
    if not condition:
        raise CheckFailed(message)


def expect_equal(actual, expected, what):
    expect(actual == expected, f"{what}: expected {expected!r}, got {actual!r}")


def eventually(probe, timeout, what, interval=0.05):
    """Calls `probe` until it gives something true, and gives that."""
    deadline = time.monotonic() + timeout
    while True:
        result = probe()
        if result:
            return result
        expect(time.monotonic() < deadline, f"not within {timeout:g} s: {what}")
        time.sleep(interval)


CHECKS = []


def check(name, targets=("quorate",), timeout=120):
    """Registers a check. `targets`: which programs are expected to pass it."""

    def register(function):
        CHECKS.append((name, targets, timeout, function))
        return function

    return register


BOTH = ("quorate", "etcd")
