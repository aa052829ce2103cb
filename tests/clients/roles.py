"""What a client library is put to, as its users would: one process, one role, until its standard input ends.

    PROGRAM ROLE ID ENDPOINT,ENDPOINT,... SCRATCH [INDEX]

Each thing done is one JSON object on a line of standard output; what must never be is a line {"violation": "..."}. The
programs in other languages (`node/roles.js`, `rust/src/main.rs`) speak the same; `tests/e2e/checks_real_clients.py` runs
them all and judges. Roles:

- `basics`: each call of the library once, with its outcome; ends by itself.
- `write`: keys of its own, and a queue in order; reads back what was acknowledged.
- `cas`: counts one shared register up by compare-and-swap.
- `keep`: one key with a short time to live, kept alive.
- `lock`: takes a shared lock, holds it for a moment, gives it back.
- `elect`: stands for election; leads for longer than its key would live if it were not refreshed.
- `watch`: says every event below /app from INDEX on, until /app/end is written.

A request that fails without an answer may have been carried out, by a retry inside the library even twice. So whatever is
written carries a name that is used once, and who cannot know asks.

Whoever holds the lock or leads makes a directory in SCRATCH, and removes it before it gives up, or before its time is
over by its own clock: that such a directory is there already is the violation that both exist to prevent.
"""

import json
import os
import sys
import threading
import time

KEEP_TTL = 3
LOCK_TTL = 4
ELECTION_TTL = 3
# A leader that could not refresh its key for so long leads no more; the rest is for a process that is slow.
LEADS_FOR = 1.5
TERM = 4.0
CODES = {"not found": 100, "compare failed": 101, "exists": 105}


class Refused(Exception):
    """The cluster's answer is no: an errorCode."""

    def __init__(self, code, message=""):
        super().__init__(f"{code}: {message}")
        self.code = code


class Unknown(Exception):
    """No answer."""


class Node:
    def __init__(self, key, value, created, modified, ttl=None):
        self.key, self.value, self.created, self.modified, self.ttl = key, value, created, modified, ttl


_saying = threading.Lock()


def say(**what):
    with _saying:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


class Ending(threading.Thread):
    """Set once standard input has ended."""

    def __init__(self):
        super().__init__(daemon=True)
        self.flag = threading.Event()
        self.start()

    def run(self):
        sys.stdin.read()
        self.flag.set()

    def sleep(self, seconds):
        self.flag.wait(seconds)

    def __bool__(self):
        return self.flag.is_set()


class Guard:
    """What one process at a time may have."""

    def __init__(self, scratch, name):
        self.path = os.path.join(scratch, name)

    def enter(self, who):
        try:
            os.mkdir(self.path)
        except FileExistsError:
            say(violation=f"{who} has {os.path.basename(self.path)} while another has it")

    def leave(self):
        os.rmdir(self.path)


def refused(code, call, *arguments, **options):
    """`call` must be refused with that code."""
    try:
        call(*arguments, **options)
    except Refused as no:
        if no.code == CODES[code]:
            return
        raise AssertionError(f"{arguments}: refused with {no}, not {CODES[code]}") from None
    raise AssertionError(f"{arguments}: went through instead of {code}")


def equal(actual, expected):
    assert actual == expected, f"{actual!r} instead of {expected!r}"


def basics(store, me, _ending, _scratch):
    base = f"/app/basics-{me}"
    first = store.set(f"{base}/a", "one")
    read = store.get(f"{base}/a")
    equal((read.value, read.created, read.modified), ("one", first.created, first.modified))
    refused("not found", store.get, f"{base}/none")
    refused("exists", store.create, f"{base}/a", "two")
    equal(store.create(f"{base}/b", "two").value, "two")
    refused("compare failed", store.swap, f"{base}/a", "x", "two")
    second = store.swap(f"{base}/a", "three", "one")
    equal((second.created, second.modified > first.modified), (first.created, True))
    refused("compare failed", store.remove, f"{base}/a", "one")
    # A value that every layer must escape: the form, the query of the comparison, the JSON.
    odd = "a b+c&d=e%41/?#\u00fc\n\"'"
    store.set(f"{base}/odd", odd)
    equal(store.get(f"{base}/odd").value, odd)
    store.swap(f"{base}/odd", "even", odd)
    store.set(f"{base}/deep/er", "v", ttl=60)
    ttl = store.get(f"{base}/deep/er").ttl
    assert 50 < ttl <= 60, f"a TTL of 60 is {ttl}"
    equal(store.listing(base), [f"{base}/{name}" for name in ("a", "b", "deep/er", "odd")])
    keys = [store.append(f"{base}/queue", value).key for value in "abc"]
    equal(store.listing(f"{base}/queue"), keys)
    store.remove(f"{base}/a", "three")
    refused("not found", store.get, f"{base}/a")
    say(basics="passed")


def write(store, me, ending, _scratch):
    count = 0
    while not ending:
        count += 1
        key, value = f"/app/write/{me}/{count}", f"{me}.{count}"
        try:
            if count % 3:
                done = store.set(key, value)
            else:
                done = store.append("/app/queue", value)
            say(wrote=done.key, value=value, index=done.modified)
            found = store.get(done.key).value
            if found != value:
                say(violation=f"{done.key} was acknowledged as {value!r}, and then read as {found!r}")
        except Unknown:
            ending.sleep(0.05)
        except Refused as no:
            say(violation=f"writing {value}: {no}")
        ending.sleep(0.01)


def cas(store, me, ending, _scratch):
    count = 0
    while not ending:
        try:
            current = store.get("/app/register")
            count += 1
            value = f"{int(current.value.split()[0]) + 1} {me}.{count}"
            done = store.swap("/app/register", value, current.value)
            say(swapped=value, index=done.modified)
        except Refused as no:
            if no.code != CODES["compare failed"]:
                say(violation=f"the register: {no}")
        except Unknown:
            ending.sleep(0.05)
        ending.sleep(0.01)


def keep(store, me, ending, _scratch):
    store.set("/app/keep", me, ttl=KEEP_TTL)
    say(keeps=KEEP_TTL)
    while not ending:
        ending.sleep(0.4)
        try:
            say(refreshed=store.refresh("/app/keep", me, KEEP_TTL).modified)
        except Unknown:
            pass
        except Refused as no:
            say(violation=f"refreshing a key that was kept: {no}")


def claim(store, key, name, ttl, ending):
    """Makes `key` with the value `name`, a name that is used once, or waits until it can. Gives None in the end.

    `since` of what it gives is a time at which the time to live had certainly not begun.
    """
    first = time.monotonic()
    while not ending:
        sent = time.monotonic()
        try:
            made = store.create(key, name, ttl)
            made.since = sent
            return made
        except Unknown:
            ending.sleep(0.05)
        except Refused as no:
            if no.code != CODES["exists"]:
                say(violation=f"claiming {key}: {no}")
        try:
            found = store.get(key)
            if found.value == name:
                found.since = first
                return found
            store.wait(key, found.modified + 1, 1.0)
        except Refused:
            pass  # it is free
        except Unknown:
            ending.sleep(0.05)


def yield_up(store, key, name):
    """Removes the key if it has that value still."""
    for _ in range(50):
        try:
            return store.remove(key, name)
        except Refused:
            return None  # by an attempt before, or its time was over
        except Unknown:
            time.sleep(0.1)


def lock(store, me, ending, scratch):
    guard, count = Guard(scratch, "lock"), 0
    while not ending:
        count += 1
        name = f"{me}.{count}"
        claimed = claim(store, "/app/lock", name, LOCK_TTL, ending)
        if claimed is None:
            break
        # A claim that took a while has not all of its time left.
        if (claimed.ttl or 0) >= LOCK_TTL - 1:
            guard.enter(name)
            say(acquired=claimed.created)
            time.sleep(0.1)
            guard.leave()
        yield_up(store, "/app/lock", name)
        ending.sleep(0.02)


def elect(store, me, ending, scratch):
    guard, count = Guard(scratch, "leader"), 0
    while not ending:
        count += 1
        name = f"{me}.{count}"
        claimed = claim(store, "/app/leader", name, ELECTION_TTL, ending)
        if claimed is None:
            break
        if time.monotonic() - claimed.since < LEADS_FOR:
            guard.enter(name)
            say(elected=claimed.created)
            leading = Leading(store, name, claimed.since)
            leading.last(ending)
            guard.leave()
            say(resigned=claimed.created)
            leading.over.set()
            leading.join()
        yield_up(store, "/app/leader", name)


class Leading(threading.Thread):
    """Refreshes a leader's key; in a thread, because a request may take longer than the leader is one."""

    def __init__(self, store, name, since):
        super().__init__(daemon=True)
        self.store, self.name, self.refreshed, self.over = store, name, since, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.3):
            sent = time.monotonic()
            try:
                self.store.swap("/app/leader", self.name, self.name, ttl=ELECTION_TTL)
                self.refreshed = sent
                say(led=self.name)
            except Unknown:
                pass
            except Refused as no:
                late = time.monotonic() - self.refreshed
                if late < ELECTION_TTL and not self.over.is_set():
                    say(violation=f"{self.name} led, and its key was gone {late:.2f} s after a refresh: {no}")
                self.over.set()

    def last(self, ending):
        """Returns when the term is over, or when it is not sure any more that the key is still there."""
        started = time.monotonic()
        while not ending and time.monotonic() - started < TERM and time.monotonic() - self.refreshed < LEADS_FOR:
            if self.over.wait(0.02):
                return


def watch(store, _me, _ending, _scratch, index):
    for action, key, modified, value in store.changes("/app", int(index)):
        say(event=action, key=key, index=modified, value=value)
        if key == "/app/end":
            return


ROLES = {"basics": basics, "write": write, "cas": cas, "keep": keep, "lock": lock, "elect": elect, "watch": watch}


def main(make_store, roles=None):
    role, me, endpoints, scratch, *more = sys.argv[1:]
    known = {**ROLES, **(roles or {})}
    known[role](make_store(endpoints.split(",")), me, Ending(), scratch, *more)
