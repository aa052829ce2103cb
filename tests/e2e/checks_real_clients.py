"""The libraries that people have, each in every role of `tests/clients/roles.py`, while the leader is killed and comes back."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

from checking import BOTH, check, eventually, expect, expect_equal
from watching import Stream, Waiter

CLIENTS = pathlib.Path(__file__).resolve().parent.parent / "clients"
# Each does something at least as often as this, whoever has just died.
PATIENCE = 20.0
ELECTION_TTL = 3
KEEP_TTL = 3


class Role(threading.Thread):
    """One process in one role: the lines that it has printed, each with the time it came."""

    def __init__(self, ctx, program, name, who, endpoints, *more):
        super().__init__(daemon=True)
        self.name, self.who, self.lines = name, who, []
        self.errors = ctx.dir / f"{who}.err"
        command, env = program
        argv = [*command, name, who, ",".join(endpoints), ctx.dir, *more]
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                list(map(str, argv)), env=os.environ | env, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        ctx.cleanups.append(self.kill)
        self.start()

    def run(self):
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), json.loads(line)))

    def done(self, what):
        """All of one kind that it has done: time and value."""
        return [(at, line[what]) for at, line in list(self.lines) if what in line]

    def end(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def expect_over(self, timeout=15):
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            expect(False, f"{self.who} still runs after {timeout} s")
        self.join(5)
        expect_equal(code, 0, f"exit code of {self.who}: {self.errors.read_text(errors='replace')[-1500:]}")


# What shows that a role gets on. The others end by themselves.
PROGRESS = {"write": "wrote", "cas": "swapped", "keep": "refreshed", "lock": "acquired", "elect": "led", "watch": "event"}


class Crowd:
    """Every role of one library, at once, against one cluster."""

    def __init__(self, ctx, program, members):
        self.ctx, self.program, self.members, self.roles = ctx, program, members, []
        self.basics_run = 0
        self.first = ctx.put(members[0], "/app/register", "0 start").node["modifiedIndex"] + 1

    def role(self, name, *more):
        count = len(self.roles) + self.basics_run
        urls = [self.members[(count + number) % len(self.members)].url for number in range(len(self.members))]
        return Role(self.ctx, self.program, name, f"{name}{count}", urls, *more)

    def basics(self):
        self.basics_run += 1
        role = self.role("basics")
        role.expect_over(30)
        expect(role.done("basics"), f"{role.who} said nothing")

    def start(self):
        for name in ("watch", "watch", "write", "write", "cas", "cas", "keep", "lock", "lock", "lock", "elect", "elect"):
            self.roles.append(self.role(name, *([self.first] if name == "watch" else [])))

    def of(self, name):
        return [role for role in self.roles if role.name == name]

    def expect_progress(self, since, when):
        """Every process, or of those that take turns at least one, does something again."""
        for name, what in PROGRESS.items():
            taking_turns = name in ("lock", "elect")
            groups = [self.of(name)] if taking_turns else [[role] for role in self.of(name)]
            for group in groups:

                def moved(group=group, what=what):
                    return any(at > since for role in group for at, _ in role.done(what))

                eventually(moved, PATIENCE, f"{group[0].who} gets on {when}")

    def expect_no_violation(self):
        for role in self.roles:
            for _, what in role.done("violation"):
                expect(False, f"{role.who}: {what}")

    def all_done(self, name):
        """What all of one role did, in the order of time: (time, line)."""
        what = {"elect": "elected"}.get(name, PROGRESS[name])
        return sorted(((at, line) for role in self.of(name) for at, line in role.lines if what in line), key=lambda pair: pair[0])


def drive(ctx, command, env=None):
    members = ctx.static_cluster()
    crowd = Crowd(ctx, (command, env or {}), members)
    crowd.basics()
    crowd.start()
    crowd.expect_progress(0, "at first")

    leader = ctx.leader(members)
    killed = time.monotonic()
    leader.kill()
    ctx.leader([member for member in members if member is not leader], timeout=15)
    crowd.basics()
    crowd.expect_progress(time.monotonic(), "after the leader was killed")
    ctx.note(f"everybody got on {time.monotonic() - killed:.1f} s after the kill")
    leader.start()
    ctx.wait_healthy(members)
    crowd.basics()
    crowd.expect_progress(time.monotonic(), "after the leader came back")
    crowd.expect_no_violation()

    keeper = crowd.of("keep")[0]
    keeper.end()
    keeper.expect_over()
    expiry = Waiter(members[0], "/app/keep", waitIndex=keeper.done("refreshed")[-1][1] + 1)
    expect_succession(ctx, crowd)
    for role in crowd.roles:
        role.end()
    for role in crowd.roles:
        if role.name != "watch" and role.process.returncode != -9:
            role.expect_over()
    expect_expiry(ctx, expiry, keeper)
    ctx.put(members[0], "/app/end", "")
    for role in crowd.of("watch"):
        role.expect_over()
    crowd.expect_no_violation()
    judge(ctx, crowd)


def expect_succession(ctx, crowd):
    """The process that leads is killed: the other one leads once the key has expired, and not before."""

    def leads(role):
        done = [line for _, line in list(role.lines) if "elected" in line or "resigned" in line]
        return done and "elected" in done[-1]

    victim = eventually(lambda: next((role for role in crowd.of("elect") if leads(role)), None), PATIENCE, "somebody leads")
    victim.kill()
    killed = time.monotonic()
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(ctx.dir / "leader")
    heir = next(role for role in crowd.of("elect") if role is not victim)
    eventually(
        lambda: any(at > killed for at, _ in heir.done("elected")), ELECTION_TTL + 3, "another leads after the leading process is killed"
    )


def expect_expiry(ctx, expiry, keeper):
    """A key that nobody refreshes any more goes in its time."""
    event = expiry.event(timeout=KEEP_TTL + 5)
    expect_equal(event["action"], "expire", "what happens to a key that is kept no more")
    late = expiry.at - keeper.done("refreshed")[-1][0] - KEEP_TTL
    # What it takes from the answer to the line is in both.
    expect(-0.5 < late < 0.6 + ctx.expiry_lateness, f"a key that was kept expired {late:+.2f} s after its time")


def history(stream):
    """Everything from the first event to the last, as one member tells it."""
    told = []
    while not told or told[-1][1] != "/app/end":
        event, _ = stream.take(1)[0]
        node = event["node"]
        told.append((event["action"], node["key"], node["modifiedIndex"], node.get("value") or ""))
    return told


def judge(ctx, crowd):
    watched = {
        # Go's client has no difference between no value and an empty one.
        role.who: [(line["event"], line["key"], line["index"], line["value"] or "") for _, line in role.lines if "event" in line]
        for role in crowd.of("watch")
    }
    told = dict(watched)
    if not ctx.is_etcd:  # its streams do not deliver what was
        told |= {member.name: history(Stream(member, "/app", recursive="true", waitIndex=crowd.first)) for member in crowd.members}
    events = list(told.values())[-1]
    for who, other in told.items():
        expect_same_events(who, other, events)
    indexes = [index for _, _, index, _ in events]
    expect_equal(indexes, sorted(set(indexes)), "the order of events")

    by_place = {(key, index): (action, value) for action, key, index, value in events}
    for _, line in crowd.all_done("write"):
        found = by_place.get((line["wrote"], line["index"]))
        expect(found is not None and found[1] == line["value"], f"{line} was acknowledged, and its event is {found}")
    expect_nothing_lost(ctx, crowd)
    expect_register(crowd, [(value, index) for _, key, index, value in events if key == "/app/register"])
    for name, what in (("lock", "acquired"), ("elect", "elected")):
        tokens = [line[what] for _, line in crowd.all_done(name)]
        expect_equal(tokens, sorted(set(tokens)), f"the createdIndexes of {name}, in the order of time")
    kept = [action for action, key, _, _ in events if key == "/app/keep"]
    expect_equal([action for action in kept if action in ("expire", "delete")], ["expire"], "ends of a key that was kept")
    expect_equal(kept[-1], "expire", "the last event of a key that was kept")
    counts = ", ".join(f"{len(crowd.all_done(name))} {what}" for name, what in PROGRESS.items() if name != "watch")
    ctx.note(f"{len(events)} events, {counts}")


def expect_same_events(who, told, reference):
    if told == reference:
        return
    number = next((at for at, (one, other) in enumerate(zip(told, reference)) if one != other), min(len(told), len(reference)))
    expect(False, f"{who}: event {number} is {told[number : number + 2]}, elsewhere {reference[number : number + 2]}")


def expect_nothing_lost(ctx, crowd):
    for member in crowd.members:
        there = {}
        for path in ("/app/write", "/app/queue"):
            collect(ctx.http("GET", member.key(path, recursive="true", **ctx.linearizable)).node, there)
        # A client that has no answer asks another member; its first attempt may take effect as well, and after the second.
        # That the acknowledged one took effect is in the events; here it must not be undone.
        lost = []
        for _, line in crowd.all_done("write"):
            value, index = there.get(line["wrote"], (None, 0))
            if value != line["value"] or index < line["index"]:
                lost.append(line)
        expect(not lost, f"{member.name} lost {len(lost)} acknowledged writes: {lost[:3]}")


def collect(node, there):
    for child in node.get("nodes", []):
        collect(child, there)
    if "value" in node:
        there[node["key"]] = (node["value"], node["modifiedIndex"])


def expect_register(crowd, changes):
    """Each swap counts up by one from what was before it, and each acknowledged one is there."""
    numbers = [int(value.split()[0]) for value, _ in changes]
    expect_equal(numbers, list(range(1, len(numbers) + 1)), "the values of the register, one after the other")
    swapped = [(line["swapped"], line["index"]) for _, line in crowd.all_done("cas")]
    lost = set(swapped) - set(changes)
    expect(not lost, f"acknowledged swaps that never were: {sorted(lost)[:3]}")


def built(path, how):
    expect(path and os.path.exists(path), f"{path} is missing: {how}")
    return path


@check("real-client-python-etcd", targets=BOTH)
def python_etcd(ctx):
    drive(ctx, [sys.executable, CLIENTS / "python_etcd.py"])


@check("real-client-node-etcd", targets=BOTH)
def node_etcd(ctx):
    modules = built(ctx.programs["node-modules"], "npm ci with tests/clients/node/package-lock.json, and --node-modules")
    drive(ctx, ["node", CLIENTS / "node/roles.js"], {"NODE_PATH": modules})


# Not against an etcd: the crate takes `strong_consistency` and does not send it, so that its reads there may miss its writes.
@check("real-client-rust-etcd")
def rust_etcd(ctx):
    drive(ctx, [built(ctx.programs["rust-client"], "cargo build in tests/clients/rust, and --rust-client")])


@check("real-client-etcdctl", targets=BOTH)
def etcdctl(ctx):
    drive(ctx, [sys.executable, CLIENTS / "etcdctl.py"], {"ETCDCTL_PROGRAM": ctx.programs["real-etcdctl"]})
