"""Time to live: never early, on time on every member, through whatever happens to the leader."""

import http.client
import os
import statistics
import threading
import time

from checking import BOTH, CheckFailed, check, eventually, expect, expect_equal
from cluster import REQUEST_TIMEOUT, request
from watching import Waiter, Stream


class Poller(threading.Thread):
    """Reads a directory on one member again and again, and remembers when each key was seen last and missed first."""

    def __init__(self, member, path, stop):
        super().__init__(daemon=True)
        self.member, self.path, self.stop = member, path, stop
        self.seen, self.missed = {}, {}
        self.start()

    def run(self):
        while not self.stop.is_set():
            asked = time.monotonic()
            try:
                answer = request("GET", self.member.key(self.path, quorum="false"), timeout=5)
                keys = {node["key"] for node in answer.node.get("nodes", [])} if answer.status == 200 else set()
            except OSError:
                continue
            answered = time.monotonic()
            for key in keys:
                self.seen[key] = asked
            for key in self.seen.keys() - keys:
                self.missed.setdefault(key, answered)
            time.sleep(0.02)


@check("ttl-on-time", targets=BOTH)
def ttl_on_time(ctx):
    """2.0 to 2.1 s after the last refresh: the event on every member, and the key itself."""
    members = ctx.static_cluster()
    ctx.put(members[0], "/warm", "up")
    on_time(ctx, lambda attempt: lateness_of_refreshed(ctx, members, f"/ttl-{attempt}"))


def lateness_of_refreshed(ctx, members, root):
    paths = [f"{root}/{number}" for number in range(len(members))]
    refreshes = ({"value": "v"}, {"value": "w", "prevExist": "true"}, {"refresh": "true", "prevExist": "true"})
    for path, writer in zip(paths, members):
        ctx.put(writer, path, "v", ttl=2)
    stop = threading.Event()
    pollers = [Poller(member, root, stop) for member in members]
    time.sleep(1.2)
    sent, answered, waiters = {}, {}, []
    for path, writer, form in zip(paths, members, refreshes):
        sent[path] = time.monotonic()
        answer = ctx.http("PUT", writer.key(path), form | {"ttl": "2"})
        answered[path] = time.monotonic()
        expect_equal(answer.status, 200, f"the refresh of {path}")
        index = answer.node["modifiedIndex"]
        waiters += [(path, Waiter(member, path, waitIndex=index + 1)) for member in members]
    late = []
    for path, waiter in waiters:
        event = waiter.event(10)
        name = waiter.member.name
        expect_equal(event["action"], "expire", f"the event of {path} on {name}")
        lived = waiter.at - sent[path]
        expect(lived >= 2.0, f"{path} expired early on {name}: {lived:.3f} s after its refresh was sent")
        late.append(waiter.at - answered[path] - 2.0)
        expect_equal(ctx.get(waiter.member, path).status, 404, f"{path} after its expiry on {name}")
    time.sleep(0.2)
    stop.set()
    for poller in pollers:
        poller.join(10)
        for path in paths:
            # A key that is read by a question that was asked too late is still there; one that is missed is gone.
            late.append(poller.seen[path] - answered[path] - 2.0)
            gone = poller.missed[path] - sent[path]
            expect(gone >= 2.0, f"{path} was gone on {poller.member.name} {gone:.3f} s after its refresh was sent")
    return late


class Metronome(threading.Thread):
    """What the machine itself takes for a pause and a write to the disk, meanwhile: the worst of it, in seconds."""

    def __init__(self, ctx):
        super().__init__(daemon=True)
        self.path, self.worst, self.stop = ctx.dir / "metronome", 0.0, threading.Event()
        self.start()

    def run(self):
        with open(self.path, "wb", buffering=0) as file:
            while not self.stop.is_set():
                began = time.monotonic()
                time.sleep(0.02)
                os.pwrite(file.fileno(), b"tick", 0)
                os.fdatasync(file.fileno())
                self.worst = max(self.worst, time.monotonic() - began - 0.02)

    def end(self):
        self.stop.set()
        self.join(10)
        return self.worst


def on_time(ctx, measure):
    """`measure` gives by how much each key was late. It is asked again only if the machine itself stood still meanwhile."""
    limit = ctx.expiry_lateness
    for attempt in range(4):
        metronome = Metronome(ctx)
        late = measure(attempt)
        stalled = metronome.end()
        worst, usual = max(late), statistics.median(late)
        text = f"expired at most {worst * 1000:.0f} ms late, median of {len(late)} {usual * 1000:.0f} ms"
        ctx.note(f"{text}, the machine alone {stalled * 1000:.0f} ms")
        expect(usual <= limit, text)
        if worst <= limit:
            return
        expect(stalled > limit / 3, f"{text}; the machine stood still for {stalled * 1000:.0f} ms at most")
    raise CheckFailed(f"late each time: {'; '.join(ctx.notes)}")


MANY = 250


class ManyWriter(threading.Thread):
    """Writes keys that expire, then ordinary ones until it is stopped; remembers when each was sent and answered."""

    def __init__(self, number, member):
        super().__init__(daemon=True)
        self.number, self.member = number, member
        self.sent, self.answered = {}, {}
        self.stop = threading.Event()
        self.start()

    def run(self):
        connection = http.client.HTTPConnection(self.member.host, self.member.client_port, timeout=10)
        while not self.stop.is_set():
            count = len(self.sent)
            path = f"/many/{self.number}-{count}"
            self.sent[path] = time.monotonic()
            connection.request("PUT", f"/v2/keys{path}?value=v" + ("&ttl=2" if count < MANY else ""))
            answer = connection.getresponse()
            answer.read()
            if answer.status != 201:
                return
            self.answered[path] = time.monotonic()
            time.sleep(0.004)


@check("ttl-many")
def ttl_many(ctx):
    """Hundreds of keys that run out one after the other: each on time, once, and in the same order on every member.

    (etcd ends a stream that is a hundred events behind, as after one look for what has expired.)
    """
    members = ctx.static_cluster()
    ctx.put(members[0], "/warm", "up")
    streams = [Stream(member, "/many", recursive="true") for member in members]
    writers = [ManyWriter(number, member) for number, member in enumerate(members)]
    told = []
    for each in streams:
        events, expired = [], 0
        while expired < MANY * len(writers):
            events += each.take(1)
            expired += events[-1][0]["action"] == "expire"
        told.append(events)
    for writer in writers:
        writer.stop.set()
        writer.join(10)
    sent = {path: at for writer in writers for path, at in writer.sent.items()}
    answered = {path: at for writer in writers for path, at in writer.answered.items()}
    mortal = sorted(f"/many/{number}-{count}" for number in range(len(writers)) for count in range(MANY))
    late, slow, unexplained = [], [], []
    for member, events in zip(members, told):
        expired = [(event["node"]["key"], at) for event, at in events if event["action"] == "expire"]
        expect_equal(sorted(path for path, _ in expired), mortal, f"what expired on {member.name}")
        lived = [(at - sent[path], path) for path, at in expired]
        expect(min(lived)[0] >= 2.0, f"{min(lived)[1]} expired early on {member.name}: {min(lived)[0]:.3f} s after it was sent")
        writes = [(sent[event["node"]["key"]], at) for event, at in events if event["action"] != "expire"]
        slow += [at - began for began, at in writes]
        for path, at in expired:
            late.append(at - answered[path] - 2.0)
            if late[-1] > ctx.expiry_lateness and not stood_still(writes, at - late[-1], at, ctx.expiry_lateness / 3):
                unexplained.append(f"{path} on {member.name} by {late[-1]:.3f} s")
    indexes = [[event["node"]["modifiedIndex"] for event, _ in events] for events in told]
    shortest = min(map(len, indexes))
    expect(all(each[:shortest] == indexes[0][:shortest] for each in indexes), "members do not tell the same events in one order")
    expect_equal(indexes[0], sorted(set(indexes[0])), "the order of the events")
    beyond = sum(each > ctx.expiry_lateness for each in late)
    worst, usual, slowest = max(late) * 1000, statistics.median(late) * 1000, max(slow) * 1000
    ctx.note(f"late by {usual:.0f} ms (median of {len(late)}), {worst:.0f} ms at most; ordinary writes took {slowest:.0f} ms at most")
    ctx.note(f"{beyond} beyond the limit, all while ordinary writes were held up" if beyond else "none beyond the limit")
    expect(not unexplained, f"{len(unexplained)} keys of {len(late)} were late: {'; '.join(unexplained[:5])} ({ctx.notes})")
    expect(usual <= ctx.expiry_lateness * 500, f"the median is {usual:.0f} ms late")


def stood_still(writes, due, expired, limit):
    """Whether an ordinary write that was on its way between the two took longer than `limit` to reach the same watcher:
    then it was the machine that stood still, disk or processor, not the expiry.

    An expiry is an entry in the log like any other; at worst it waits for one that is under way, and then takes as long.
    """
    return any(began < expired and at > due and at - began > limit for began, at in writes)


@check("ttl-refresh-and-forever", targets=BOTH)
def ttl_refresh(ctx):
    members = ctx.static_cluster()
    ctx.put(members[0], "/announce/a", "192.0.2.1:80", ttl=2)
    ctx.put(members[1], "/announce/b", "192.0.2.2:80", ttl=2)
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        ctx.put(members[2], "/announce/a", "192.0.2.1:80", ttl=2)
        time.sleep(0.5)
    expect_equal(ctx.get(members[1], "/announce/a").status, 200, "a key that is announced again and again")
    expect_equal(ctx.get(members[1], "/announce/b").status, 404, "a key that was announced once")
    ctx.http("PUT", members[0].key("/announce/a"), {"value": "192.0.2.1:80", "ttl": "", "prevExist": "true"})
    time.sleep(3)
    answer = ctx.get(members[0], "/announce/a")
    expect(answer.status == 200 and "ttl" not in answer.node, f"a TTL that was taken away: {answer.text}")


# What follows the last heartbeat of a leader that is killed is not known to have been under a leader: it does not count.
HEARTBEAT = 0.1


@check("ttl-through-changes-of-leader", targets=BOTH, timeout=180)
def ttl_through_changes_of_leader(ctx):
    """Never early; late by no more than there was no leader. Killed, killed when the key is about to expire, and stopped."""
    members = ctx.static_cluster()
    for ttl, after, end in ((4, 0.0, "kill"), (2, 1.9, "kill"), (3, 1.0, "stop")):
        for attempt in range(4):
            metronome = Metronome(ctx)
            late, leaderless = change_of_leader(ctx, members, f"/{end}-{ttl}-{attempt}", ttl, after, end)
            stalled = metronome.end()
            text = f"{end} after {after:g} s: {late:.2f} s late, no leader for {leaderless:.2f} s"
            ctx.note(text)
            unknown = HEARTBEAT if end == "kill" else 0
            if late <= leaderless + unknown + ctx.expiry_lateness:
                break
            expect(stalled > ctx.expiry_lateness / 3, f"{text}; the machine stood still for {stalled:.3f} s at most")
        else:
            raise CheckFailed(f"late each time: {'; '.join(ctx.notes)}")


def change_of_leader(ctx, members, path, ttl, after, end):
    """By how much the key was late on the last of the others, and for how long there was no leader."""
    leader = ctx.leader(members)
    rest = [member for member in members if member is not leader]
    sent = time.monotonic()
    index = ctx.put(leader, path, "v", ttl=ttl).node["modifiedIndex"]
    answered = time.monotonic()
    waiters = [Waiter(member, path, waitIndex=index + 1) for member in rest]
    time.sleep(max(0.0, sent + after - time.monotonic()))
    ended = time.monotonic()
    ending = threading.Thread(target=getattr(leader, end))
    ending.start()
    time.sleep(0.02)
    eventually(lambda: writes(rest[0], f"/after{path}"), 15, "a write after the leader is gone", interval=0.01)
    leaderless = time.monotonic() - ended
    ending.join()
    for waiter in waiters:
        name = waiter.member.name
        event = waiter.event(15)
        expect_equal((event["action"], event["node"]["key"]), ("expire", path), f"the event on {name}")
        lived = waiter.at - sent
        expect(lived >= ttl, f"ttl={ttl} expired early on {name}: after {lived:.3f} s ({end} after {after:g} s)")
    leader.start()
    ctx.wait_healthy(members)
    return max(waiter.at for waiter in waiters) - answered - ttl, leaderless


def writes(member, path):
    try:
        return request("PUT", member.key(path), {"value": "v"}, timeout=5).status < 300
    except OSError:
        return False


@check("paused-leader")
def paused_leader(ctx):
    """A leader that stood still while another took over neither expires what was refreshed meanwhile nor answers what was.

    (etcd counts the time without a leader: the key runs out before anybody could refresh it.)
    """
    members = ctx.static_cluster()
    leader = ctx.leader(members)
    rest = [member for member in members if member is not leader]
    ctx.put(leader, "/paused/ttl", "v", ttl=3)
    ctx.put(leader, "/paused/key", "before")
    stream = Stream(leader, "/paused", recursive="true")
    leader.pause()
    try:
        eventually(lambda: writes(rest[0], "/paused/ttl"), 20, "a write while the leader is paused")
        ctx.put(rest[0], "/paused/ttl", "w", ttl=5)
        refreshed = time.monotonic()
        ctx.put(rest[1], "/paused/key", "after")
        time.sleep(2)
    finally:
        leader.resume()
    for _ in range(20):
        answer = request("GET", leader.key("/paused/key", **ctx.linearizable), timeout=REQUEST_TIMEOUT)
        if answer.status == 200:
            expect_equal(answer.node["value"], "after", f"{leader.name}, which was paused, after it goes on")
    while time.monotonic() < refreshed + 4.5:
        for member in rest:
            expect_equal(ctx.get(member, "/paused/ttl").status, 200, "a key that was refreshed while its leader was paused")
        time.sleep(0.1)
    told = [(event["action"], event["node"].get("value")) for event, _ in stream.take(4)]
    expect_equal(told, [("set", "v"), ("set", "w"), ("set", "after"), ("expire", None)], f"events on {leader.name}")
