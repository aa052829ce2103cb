"""What goes wrong: kill -9 of any and of all, an orderly stop, a member that was away."""

import threading
import time

from checking import BOTH, check, eventually, expect, expect_equal
from cluster import request
from watching import Stream

# A follower waits one to two election timeouts (1 s by default) before it stands. etcd, under load, takes longer.
LONGEST_WRITE_PAUSE = {"quorate": 3.0, "etcd": 8.0}
# Short, so that a pause is the cluster's and not a client's that waits for an answer which the dead leader owes it.
WRITE_TIMEOUT = 0.5


class Writer(threading.Thread):
    """Writes keys of its own one after the other, and remembers what was acknowledged, and when."""

    def __init__(self, number, members, stop):
        super().__init__(daemon=True)
        self.number, self.members, self.stop = number, members, stop
        self.prefix = f"/load/{number}"
        self.acknowledged = {}
        self.times = []  # one for each acknowledged, in the same order

    def run(self):
        count, at = 0, self.number
        while not self.stop.is_set():
            count += 1
            path, value = f"{self.prefix}/{count}", f"{self.number}.{count}"
            try:
                answer = request("PUT", self.members[at % len(self.members)].key(path), {"value": value}, timeout=WRITE_TIMEOUT)
            except OSError:
                # Unknown whether it was written; another member may know more.
                at += 1
                time.sleep(0.01)
                continue
            if answer.status in (200, 201):
                self.acknowledged[path] = (value, answer.node["modifiedIndex"])
                self.times.append(time.monotonic())
            else:
                at += 1
                time.sleep(0.01)


def start_writers(members, count=8):
    stop = threading.Event()
    writers = [Writer(number, members, stop) for number in range(count)]
    for writer in writers:
        writer.start()
    return stop, writers


def stop_writers(stop, writers):
    """Gives everything that was acknowledged: path to value and index."""
    stop.set()
    for writer in writers:
        writer.join(15)
    acknowledged = {path: known for writer in writers for path, known in writer.acknowledged.items()}
    indexes = [index for _, index in acknowledged.values()]
    expect_equal(len(set(indexes)), len(indexes), "indexes are given once")
    return acknowledged


def write_times(writers, since):
    return sorted(at for writer in writers for at in list(writer.times) if at > since)


# Often enough that members recover from checkpoints and from each other's snapshots, not from the log alone.
SMALL_LOGS = ("--snapshot-count", "200")


@check("kill-any-under-load", targets=BOTH, timeout=180)
def kill_any(ctx):
    """One after the other, whoever leads; a stream on another member misses nothing meanwhile."""
    members = ctx.static_cluster(extra=SMALL_LOGS)
    stop, writers = start_writers(members)
    for number in (0, 1, 2, None):
        time.sleep(0.7)
        leader = ctx.leader(members)
        victim = leader if number is None else members[number]
        stream = Stream(next(member for member in members if member is not victim), "/load", recursive="true")
        started = time.monotonic()
        time.sleep(0.3)
        victim.kill()
        killed = time.monotonic()
        eventually(lambda since=killed: write_times(writers, since), 20, f"a write is acknowledged after {victim.name} was killed")
        # The first is not the end of it: the leader that took it may not last.
        time.sleep(1.5)
        before = [at for at in write_times(writers, started) if at <= killed]
        expect(before, "no write was acknowledged before the kill")
        moments = [before[-1], *write_times(writers, killed)]
        pause = max(late - early for early, late in zip(moments, moments[1:]))
        role = "leader" if victim is leader else "follower"
        limit = LONGEST_WRITE_PAUSE[ctx.target]
        expect(pause < limit, f"no write was acknowledged for {pause:.2f} s after {victim.name} ({role}) was killed")
        ctx.note(f"{role} killed: writes paused {pause:.2f} s")
        ended = time.monotonic()
        expect_stream_complete(stream, writers, started, ended - 0.5)
        victim.start()
        ctx.wait_healthy(members)
    acknowledged = stop_writers(stop, writers)
    ctx.note(f"{len(acknowledged)} writes acknowledged")
    for member in members:
        expect_all_there(ctx, member, acknowledged)


def expect_stream_complete(stream, writers, since, until):
    """Every write that was acknowledged between the two is in the stream; indexes only go up."""
    wanted = {
        index
        for writer in writers
        for (_, index), at in zip(list(writer.acknowledged.values()), list(writer.times))
        if since + 0.2 < at < until
    }
    told = []
    while not told or told[-1] < max(wanted):
        told += [event["node"]["modifiedIndex"] for event, _ in stream.take(1)]
    expect_equal(told, sorted(set(told)), "the order of a stream through a kill")
    missed = sorted(wanted - set(told))
    expect(not missed, f"a stream on {stream.member.name} missed {len(missed)} of {len(wanted)} events: {missed[:5]}")


def expect_all_there(ctx, member, acknowledged):
    """Everything acknowledged is there, by one listing."""
    root = request("GET", member.key("/load", recursive="true", **ctx.linearizable), timeout=30)
    expect(root.status == 200, f"/load on {member.name}: {root.status} {root.text[:200]}")
    there = {}
    for directory in root.node["nodes"]:
        for node in directory.get("nodes", []):
            there[node["key"]] = (node["value"], node["modifiedIndex"])
    lost = [path for path, known in acknowledged.items() if there.get(path) != known]
    expect(not lost, f"{member.name} lost {len(lost)} acknowledged writes of {len(acknowledged)}: {sorted(lost)[:5]}")


@check("kill-all-and-restart", targets=BOTH, timeout=180)
def kill_all(ctx):
    """Everything acknowledged comes back, again and again: keys, times to live, the past."""
    extra = () if ctx.is_etcd else SMALL_LOGS
    members = ctx.static_cluster(extra=extra)
    past = [ctx.put(members[number % 3], f"/history/{number}", number).node["modifiedIndex"] for number in range(20)]
    ctx.put(members[0], "/lease/long", "v", ttl=100)
    acknowledged = {}
    for round_number in range(3):
        ctx.put(members[0], "/lease/short", "v", ttl=3)
        given = time.monotonic()
        stop, writers = start_writers(members, count=6)
        for writer in writers:
            writer.prefix = f"/load/{round_number}-{writer.number}"
        time.sleep(1.5)
        for member in members:
            member.process.kill()
        for member in members:
            member.process.wait()
        down = time.monotonic()
        new = stop_writers(stop, writers)
        expect(len(new) > 10, f"only {len(new)} writes were acknowledged")
        acknowledged |= new
        for member in members:
            member.start()
        ctx.wait_healthy(members)
        ctx.note(f"{len(new)} writes, back {time.monotonic() - down:.1f} s after the kill")
        for member in members:
            expect_restored(ctx, member, acknowledged, past)
        early = time.monotonic() - given < 3
        expect(not early or ctx.get(members[1], "/lease/short").status == 200, "the short TTL ran out early")
        eventually(lambda: ctx.get(members[1], "/lease/short").status == 404, 6, "the short TTL runs out after all")
    for member in members:
        ctx.put(member, f"/after/{member.name}", "v")


def expect_restored(ctx, member, acknowledged, past):
    expect_all_there(ctx, member, acknowledged)
    ttl = ctx.get(member, "/lease/long").node["ttl"]
    expect(60 < ttl <= 100, f"a TTL of 100 s is now {ttl} on {member.name}")
    for number in range(len(past)):
        found = ctx.get(member, f"/history/{number}")
        expect_equal(found.node["value"], str(number), f"/history/{number} on {member.name}")
    if ctx.is_etcd:
        return  # which keeps a thousand events; the load was more
    stream = Stream(member, "/history", recursive="true", waitIndex=past[0])
    told = [event["node"]["modifiedIndex"] for event, _ in stream.take(len(past))]
    expect_equal(told, past, f"the past on {member.name}")
    # And of the load: as many events as writes, none of them twice.
    first = min(index for _, index in acknowledged.values())
    last = max(index for _, index in acknowledged.values())
    stream = Stream(member, "/load", recursive="true", waitIndex=first)
    told = []
    while not told or told[-1] < last:
        told += [event["node"]["modifiedIndex"] for event, _ in stream.take(1)]
    expect_equal(told, sorted(set(told)), f"the order of the past on {member.name}")
    missing = {index for _, index in acknowledged.values()} - set(told)
    expect(not missing, f"{len(missing)} acknowledged writes are not in the past on {member.name}: {sorted(missing)[:5]}")


@check("snapshot-to-a-member-that-was-away", targets=BOTH, timeout=180)
def snapshot(ctx):
    """The others have thrown away the log that it missed; it gets the whole state: keys, times to live, the past."""
    members = ctx.static_cluster(extra=("--snapshot-count", "20"))
    away, rest = members[2], members[:2]
    ctx.put(away, "/snap/before", "v", ttl=100)
    away.kill()
    written = [ctx.put(rest[number % 2], f"/snap/{number % 50}", number).node["modifiedIndex"] for number in range(300)]
    # etcd keeps 5000 entries for those that are slow; there, the log will do.
    away.start()
    ctx.wait_healthy(members)
    for number in range(50):
        expect_equal(ctx.get(away, f"/snap/{number}").node["value"], str(250 + number), f"/snap/{number} on {away.name}")
    ttl = ctx.get(away, "/snap/before").node["ttl"]
    expect(70 < ttl <= 100, f"a TTL of 100 s is now {ttl}")
    if not ctx.is_etcd:
        stream = Stream(away, "/snap", recursive="true", waitIndex=written[0])
        told = [event["node"]["modifiedIndex"] for event, _ in stream.take(len(written))]
        expect_equal(told, written, f"the past on {away.name}")
        sender = [member for member in rest if "sending it the whole state" in member.output()]
        expect(sender, "no member sent its state: the check has not checked it")
    # It is a full member: with it and one other, writes go on.
    rest[0].kill()
    ctx.leader([away, rest[1]], timeout=15)
    ctx.put(away, "/snap/after", "v")


@check("stop-and-start", targets=BOTH)
def stop_and_start(ctx):
    """SIGTERM one after the other, and the cluster serves throughout."""
    members = ctx.static_cluster()
    for number, member in enumerate(members):
        member.stop()
        rest = [other for other in members if other is not member]
        ctx.leader(rest, timeout=15)
        ctx.put(rest[0], f"/rolling/{number}", "v")
        member.start()
        ctx.wait_healthy(members)
        expect_equal(ctx.get(member, f"/rolling/{number}").status, 200, f"what {member.name} missed")
