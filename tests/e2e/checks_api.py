"""What clients do: keys, time to live, watches, and the clients themselves."""

import asyncio
import concurrent.futures
import http.client
import json
import os
import queue
import re
import resource
import statistics
import threading
import time

from cluster import BOTH, REQUEST_TIMEOUT, CheckFailed, check, eventually, expect, expect_equal, request


@check("keys-on-every-member", targets=BOTH)
def keys(ctx):
    members = ctx.static_cluster()
    for number, member in enumerate(members):
        others = members[:number] + members[number + 1 :]
        path = f"/keys/{number}"
        created = ctx.put(member, path, "one")
        expect_equal(created.status, 201, "a first set")
        index = created.node["modifiedIndex"]
        expect_equal(created.index, index, "X-Etcd-Index of a write")
        for other in others:
            answer = ctx.get(other, path)
            expect_equal(answer.json["node"], created.json["node"], f"{path} on {other.name}")

        changed = ctx.put(others[0], path, "two", prevIndex=index)
        expect_equal(changed.json["action"], "compareAndSwap", "action")
        expect_equal(changed.json["prevNode"]["value"], "one", "prevNode")
        refused = ctx.http("PUT", others[1].key(path), {"value": "three", "prevValue": "one"})
        expect_equal((refused.status, refused.json["errorCode"]), (412, 101), "a swap of the wrong value")
        expect_equal(refused.json["cause"], "[one != two]", "its cause")
        exists = ctx.http("PUT", member.key(path), {"value": "x", "prevExist": "false"})
        expect_equal((exists.status, exists.json["errorCode"]), (412, 105), "create of what exists")
        gone = ctx.http("DELETE", member.key(path, prevValue="two"))
        expect_equal(gone.json["action"], "compareAndDelete", "action")
        for other in members:
            missing = ctx.get(other, path)
            expect_equal((missing.status, missing.json["errorCode"]), (404, 100), f"{path} on {other.name}")

    for member in members:
        first = ctx.http("POST", member.key("/queue"), {"value": member.name})
        expect_equal(first.status, 201, "POST")
        expect(re.fullmatch(r"/queue/\d{20}", first.node["key"]), f"in-order key {first.node['key']}")
    listing = ctx.get(members[0], "/queue", sorted="true").node["nodes"]
    expect_equal([node["value"] for node in listing], [member.name for member in members], "the queue in order")

    ctx.put(members[0], "/dir/sub/key", "v")
    expect_equal(ctx.http("DELETE", members[1].key("/dir")).json["errorCode"], 102, "delete of a directory as a key")
    expect_equal(ctx.http("DELETE", members[1].key("/dir", dir="true")).json["errorCode"], 108, "delete of a full directory")
    expect_equal(ctx.http("DELETE", members[1].key("/dir", recursive="true")).status, 200, "recursive delete")


class Waiter(threading.Thread):
    """One long poll in the background: its answer, and when it came."""

    def __init__(self, member, path, timeout=30, **query):
        super().__init__(daemon=True)
        self.member, self.answer, self.at, self.error = member, None, None, None
        self.connection = http.client.HTTPConnection(member.host, member.client_port, timeout=timeout)
        self.connection.request("GET", member.key(path, wait="true", **query).removeprefix(member.url))
        # Headers come when the watch is armed: from here on nothing can be missed.
        self.response = self.connection.getresponse()
        self.start()

    def run(self):
        try:
            self.answer = json.loads(self.response.read())
            self.at = time.monotonic()
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.error = error

    def event(self, timeout=30):
        self.join(timeout)
        expect(self.answer is not None, f"no event on {self.member.name} within {timeout:g} s ({self.error})")
        return self.answer


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


@check("ttl-many", targets=BOTH)
def ttl_many(ctx):
    """Hundreds of keys that run out one after the other: each on time, once, and in the same order on every member."""
    members = ctx.static_cluster()
    ctx.put(members[0], "/warm", "up")
    on_time(ctx, lambda attempt: lateness_of_many(members, f"/many-{attempt}"))


def lateness_of_many(members, root):
    streams = [Stream(member, root, recursive="true") for member in members]
    sent, answered = {}, {}

    def write(writer):
        connection = http.client.HTTPConnection(members[writer].host, members[writer].client_port, timeout=10)
        for number in range(250):
            path = f"{root}/{writer}-{number}"
            sent[path] = time.monotonic()
            connection.request("PUT", f"/v2/keys{path}?ttl=2&value=v")
            answer = connection.getresponse()
            answer.read()
            expect_equal(answer.status, 201, f"PUT {path}")
            answered[path] = time.monotonic()
            time.sleep(0.004)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for done in [pool.submit(write, writer) for writer in range(3)]:
            done.result()
    late, orders = [], []
    for member, each in zip(members, streams):
        events = each.take(1500)
        expired = [(event["node"]["key"], at) for event, at in events if event["action"] == "expire"]
        orders.append([event["node"]["modifiedIndex"] for event, _ in events])
        expect_equal(sorted(path for path, _ in expired), sorted(sent), f"what expired on {member.name}")
        for path, at in expired:
            expect(at - sent[path] >= 2.0, f"{path} expired early on {member.name}: {at - sent[path]:.3f} s after it was sent")
            late.append(at - answered[path] - 2.0)
    expect(orders[0] == orders[1] == orders[2] == sorted(orders[0]), "members do not tell the same events in one order")
    return late


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


@check("ttl-through-changes-of-leader", targets=BOTH)
def ttl_through_changes_of_leader(ctx):
    """Never early; late by no more than there was no leader. Killed, killed when the key is about to expire, and stopped."""
    members = ctx.static_cluster()
    for number, (ttl, after, end) in enumerate(((4, 0.0, "kill"), (2, 1.9, "kill"), (3, 1.0, "stop"))):
        leader = ctx.leader(members)
        rest = [member for member in members if member is not leader]
        path = f"/ttl/{number}"
        sent = time.monotonic()
        index = ctx.put(leader, path, "v", ttl=ttl).node["modifiedIndex"]
        answered = time.monotonic()
        waiters = [Waiter(member, path, waitIndex=index + 1) for member in rest]
        time.sleep(max(0.0, sent + after - time.monotonic()))
        ended = time.monotonic()
        ending = threading.Thread(target=getattr(leader, end))
        ending.start()
        time.sleep(0.02)
        eventually(lambda number=number: writes(rest[0], f"/after/{number}"), 15, "a write after the leader is gone", interval=0.01)
        leaderless = time.monotonic() - ended
        ending.join()
        for waiter in waiters:
            name = waiter.member.name
            event = waiter.event(15)
            expect_equal((event["action"], event["node"]["key"]), ("expire", path), f"the event on {name}")
            lived, late = waiter.at - sent, waiter.at - answered - ttl
            what = f"on {name} (leader: {end} after {after:g} s; none for {leaderless:.3f} s)"
            expect(lived >= ttl, f"ttl={ttl} expired early {what}: after {lived:.3f} s")
            expect(late <= leaderless + ctx.expiry_lateness, f"ttl={ttl} expired {late:.3f} s late {what}")
        ctx.note(f"{end} after {after:g} s: {late:.2f} s late, no leader for {leaderless:.2f} s")
        leader.start()
        ctx.wait_healthy(members)


def writes(member, path):
    try:
        return request("PUT", member.key(path), {"value": "v"}, timeout=5).status < 300
    except OSError:
        return False


@check("paused-leader", targets=BOTH)
def paused_leader(ctx):
    """A leader that stood still while another took over neither expires what was refreshed meanwhile nor answers what was."""
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


@check("watch-recursive-and-past", targets=BOTH)
def watch(ctx):
    members = ctx.static_cluster()
    first = ctx.put(members[0], "/w/a/one", "1").node["modifiedIndex"]
    for member in members:
        # A watch without an index is told what its member applies from now on, which may lag behind what another has
        # acknowledged; after a default read of the same member it does not.
        ctx.get(member, "/w")
        waiter = Waiter(member, "/w", recursive="true")
        ctx.put(members[0], "/elsewhere", "x")
        written = ctx.put(members[1], "/w/a/b/c", member.name).json
        event = waiter.event()
        expect_equal(event["node"]["value"], member.name, f"the event on {member.name}")
        expect_equal(event["node"]["modifiedIndex"], written["node"]["modifiedIndex"], "its index")

    # From the past: every event in order, on every member.
    for member in members:
        index, seen = first, []
        for _ in range(4):
            event = Waiter(member, "/w", recursive="true", waitIndex=index).event()
            seen.append(event["node"]["value"])
            index = event["node"]["modifiedIndex"] + 1
        expect_equal(seen, ["1", "m1", "m2", "m3"], f"events since {first} on {member.name}")

    hidden = Waiter(members[0], "/w", recursive="true")
    ctx.put(members[0], "/w/_hidden/key", "x")
    ctx.put(members[0], "/w/shown", "y")
    expect_equal(hidden.event()["node"]["key"], "/w/shown", "a recursive watch over a hidden key")


class Stream(threading.Thread):
    """A stream of events, each with the time it came, into a queue."""

    def __init__(self, member, path, **query):
        super().__init__(daemon=True)
        self.member, self.events = member, queue.Queue()
        self.connection = http.client.HTTPConnection(member.host, member.client_port, timeout=60)
        self.connection.request("GET", member.key(path, wait="true", stream="true", **query).removeprefix(member.url))
        self.response = self.connection.getresponse()
        self.start()

    def run(self):
        try:
            # Taken apart later: what it takes here would count as lateness of the next.
            while line := self.response.readline():
                self.events.put((line, time.monotonic()))
        except (OSError, http.client.HTTPException):
            pass

    def take(self, count, timeout=20):
        taken = []
        deadline = time.monotonic() + timeout
        while len(taken) < count:
            try:
                line, at = self.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise CheckFailed(f"{len(taken)} events of {count} within {timeout:g} s") from None
            taken.append((json.loads(line), at))
        return taken


@check("watch-stream", targets=BOTH)
def stream(ctx):
    members = ctx.static_cluster()
    streams = [Stream(member, "/s", recursive="true") for member in members]
    written = [ctx.put(members[number % 3], f"/s/{number % 7}", number).node["modifiedIndex"] for number in range(60)]
    for member, each in zip(members, streams):
        indexes = [event["node"]["modifiedIndex"] for event, _ in each.take(60)]
        expect_equal(indexes, written, f"the stream on {member.name}")


@check("watch-stream-from-the-past")
def stream_from_the_past(ctx):
    """The past first, then what comes, with nothing between them missing. (etcd gives one past event, then skips.)"""
    members = ctx.static_cluster()
    written = [ctx.put(members[0], "/s/key", number).node["modifiedIndex"] for number in range(30)]
    streams = [Stream(member, "/s", recursive="true", waitIndex=written[0]) for member in members]
    written += [ctx.put(members[1], "/s/key", number).node["modifiedIndex"] for number in range(30)]
    for member, each in zip(members, streams):
        indexes = [event["node"]["modifiedIndex"] for event, _ in each.take(60)]
        expect_equal(indexes, written, f"the stream on {member.name}")


@check("watch-cleared-and-to-come")
def watch_cleared(ctx):
    """What is no longer known is said to be so, and how to go on; what is to come is waited for."""
    members = ctx.static_cluster(extra=("--history-events", "50"))
    indexes = [ctx.put(members[0], "/c/key", number).node["modifiedIndex"] for number in range(80)]
    for member in members:
        old = ctx.http("GET", member.key("/c/key", wait="true", waitIndex=indexes[0]))
        expect_equal((old.status, old.json["errorCode"]), (400, 401), f"a watch from the cleared past on {member.name}")
        expect("outdated and cleared" in old.text, f"its message: {old.text}")
        expect(re.fullmatch(r"\[the requested history has been cleared \[\d+/\d+\]\]", f"[{old.json['cause']}]"), f"its cause: {old.text}")
        kept = ctx.http("GET", member.key("/c/key", wait="true", waitIndex=indexes[40]))
        expect_equal(kept.node["value"], "40", f"a watch from the past that is kept, on {member.name}")
    last = indexes[-1]
    waiter = Waiter(members[1], "/c/key", waitIndex=last + 3)
    for number in range(4):
        ctx.put(members[2], "/c/key", f"later {number}")
    expect_equal(waiter.event()["node"]["modifiedIndex"], last + 3, "a watch of what is to come")


CROWD = 10_000


def allow_open_files(count):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, hard)))
    except (OSError, ValueError) as error:
        raise CheckFailed(f"needs {count} open files, the limit is {soft} ({error})") from error


async def crowd(member, fire):
    """Opens `CROWD` long polls on one member, then lets `fire` make the event; gives the seconds until the last had it."""
    opening = asyncio.Semaphore(200)
    armed = 0
    all_armed = asyncio.Event()

    async def one():
        nonlocal armed
        async with opening:
            reader, writer = await asyncio.open_connection(member.host, member.client_port)
            writer.write(b"GET /v2/keys/crowd?wait=true&recursive=true HTTP/1.1\r\nHost: e2e\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            expect(b" 200 " in head.split(b"\r\n")[0], f"a watch was answered {head!r}")
        armed += 1
        if armed == CROWD:
            all_armed.set()
        body = await reader.readuntil(b"}\n")
        writer.close()
        return b'"now"' in body

    watches = [asyncio.create_task(one()) for _ in range(CROWD)]
    try:
        waiting = asyncio.create_task(all_armed.wait())
        done, _ = await asyncio.wait([*watches, waiting], timeout=90, return_when=asyncio.FIRST_COMPLETED)
        for early in done - {waiting}:
            early.result()
        expect(waiting in done, f"{armed} watches of {CROWD} are armed after 90 s")
        started = time.monotonic()
        await asyncio.to_thread(fire)
        told = await asyncio.wait_for(asyncio.gather(*watches), timeout=60)
        expect_equal(sum(told), CROWD, "watches that were told")
        return time.monotonic() - started
    finally:
        for task in watches:
            task.cancel()


@check("watch-ten-thousand", targets=BOTH, timeout=240)
def watch_ten_thousand(ctx):
    # Each end of a watch is an open file, here and at the member, which inherits the limit.
    allow_open_files(CROWD + 1_000)
    members = ctx.static_cluster()
    seconds = asyncio.run(crowd(members[0], lambda: ctx.put(members[1], "/crowd/key", "now")))
    expect(seconds < 30, f"{seconds:.1f} s until the last of {CROWD} watches was told")
    expect_equal(ctx.get(members[0], "/crowd/key").status, 200, "the member afterwards")


# What is typed, the exit code, standard output, standard error; the same for both etcdctl.
ETCDCTL = (
    (["set", "/ctl/a", "one"], 0, r"one\n", ""),
    (["get", "/ctl/a"], 0, r"one\n", ""),
    (["--output", "extended", "get", "/ctl/a"], 0, r"Key: /ctl/a\nCreated-Index: \d+\nModified-Index: \d+\nTTL: 0\nIndex: \d+\n\none\n", ""),
    (["mk", "/ctl/a", "two"], 4, "", r"Error:  105: Key already exists \(/ctl/a\) \[\d+\]\n"),
    (["update", "/ctl/a", "two"], 0, r"two\n", ""),
    (["set", "/ctl/a", "three", "--swap-with-value", "two"], 0, r"three\n", ""),
    (["set", "/ctl/a", "four", "--swap-with-value", "two"], 4, "", r"Error:  101: Compare failed \(\[two != three\]\) \[\d+\]\n"),
    (["get", "/ctl/none"], 4, "", r"Error:  100: Key not found \(/ctl/none\) \[\d+\]\n"),
    (["mkdir", "/ctl/dir"], 0, "", ""),
    (["set", "/ctl/dir/b", "five"], 0, r"five\n", ""),
    (["get", "/ctl/dir"], 1, "", r"/ctl/dir: is a directory\n"),
    (["ls", "--sort", "--recursive", "-p", "/ctl"], 0, r"/ctl/a\n/ctl/dir/\n/ctl/dir/b\n", ""),
    (["set", "/ctl/ttl", "x", "--ttl", "60"], 0, r"x\n", ""),
    (["rm", "/ctl/a"], 0, r"PrevNode.Value: three\n", ""),
    (["rm", "/ctl/dir"], 4, "", r"Error:  102: Not a file \(/ctl/dir\) \[\d+\]\n"),
    (["rm", "--recursive", "/ctl"], 0, "", ""),
    (["member", "list"], 0, r"([0-9a-f]+: name=m[123] peerURLs=http://127.0.0.1:\d+ clientURLs=http://127.0.0.1:\d+ isLeader=(true|false)\n){3}", ""),
    (["cluster-health"], 0, r"(member [0-9a-f]+ is healthy: got healthy result from http://127.0.0.1:\d+\n){3}cluster is healthy\n", ""),
)  # fmt: skip


def drive_etcdctl(ctx, program, members):
    endpoints = ",".join(member.url for member in members)
    env = {"ETCDCTL_API": "2", "ETCDCTL_ENDPOINTS": endpoints}
    for arguments, code, stdout, stderr in ETCDCTL:
        done = ctx.run(program, *arguments, env=env)
        what = f"etcdctl {' '.join(arguments)}"
        expect_equal(done.returncode, code, f"{what}: exit code ({done.stdout!r} {done.stderr!r})")
        expect(re.fullmatch(stdout, done.stdout), f"{what}: printed {done.stdout!r}, not {stdout!r}")
        expect(re.fullmatch(stderr, done.stderr), f"{what}: said {done.stderr!r}, not {stderr!r}")

    # A watch, from before the write and from the past.
    waiting = ctx.put(members[0], "/ctl-watch", "before").node["modifiedIndex"]
    ctx.put(members[1], "/ctl-watch", "after")
    done = ctx.run(program, "watch", "/ctl-watch", "--after-index", waiting, env=env)
    expect_equal((done.returncode, done.stdout), (0, "after\n"), "etcdctl watch --after-index")
    # The announcing sidekick's own line.
    done = ctx.run(program, "--endpoints", members[1].url, "set", "/announce/services/apache80", "192.0.2.1:80", "--ttl", "60",
                   env={"ETCDCTL_API": "2"})  # fmt: skip
    expect_equal((done.returncode, done.stdout), (0, "192.0.2.1:80\n"), f"set --ttl ({done.stderr})")
    ttl = ctx.get(members[2], "/announce/services/apache80").node["ttl"]
    expect(55 < ttl <= 60, f"ttl is {ttl}")


@check("etcdctl-real", targets=BOTH)
def real_etcdctl(ctx):
    drive_etcdctl(ctx, ctx.programs["real-etcdctl"], ctx.static_cluster())


@check("etcdctl-ours", targets=BOTH)
def our_etcdctl(ctx):
    """Ours, against our members and against a real etcd."""
    expect(ctx.programs["etcdctl"], "no --etcdctl given")
    members = ctx.static_cluster()
    drive_etcdctl(ctx, ctx.programs["etcdctl"], members)
    peers = ",".join(member.address for member in members)
    done = ctx.run(ctx.programs["etcdctl"], "--peers", peers, "set", "/old", "style")
    expect_equal((done.returncode, done.stdout), (0, "style\n"), f"--peers ({done.stderr})")


@check("python-etcd", targets=BOTH)
def python_etcd(ctx):
    try:
        import etcd
    except ImportError as error:
        raise CheckFailed(f"{error}: pip install python-etcd, and run this with that Python") from error
    members = ctx.static_cluster()
    hosts = tuple((member.host, member.client_port) for member in members)
    client = etcd.Client(host=hosts, allow_reconnect=True)
    client.write("/py/a", "one")
    expect_equal(client.read("/py/a", quorum=True).value, "one", "read")
    result = client.read("/py/a")
    result.value = "two"
    client.update(result)
    try:
        client.write("/py/a", "x", prevValue="one")
        raise CheckFailed("a swap of the wrong value went through")
    except etcd.EtcdCompareFailed:
        pass
    try:
        client.read("/py/none")
        raise CheckFailed("a key that is not there was read")
    except etcd.EtcdKeyNotFound:
        pass
    client.write("/py/queue", "first", append=True)
    client.write("/py/queue", "second", append=True)
    found = [leaf.value for leaf in client.read("/py/queue", sorted=True, recursive=True).leaves]
    expect_equal(found, ["first", "second"], "a directory")

    index = client.write("/py/ttl", "x", ttl=1).modifiedIndex
    expired = client.watch("/py/ttl", index=index + 1, timeout=10)
    expect_equal(expired.action, "expire", "the event after a TTL")

    first, second = etcd.Lock(client, "job"), etcd.Lock(etcd.Client(host=hosts, allow_reconnect=True), "job")
    expect(first.acquire(blocking=True, lock_ttl=30, timeout=10), "the first lock")
    expect(not second.acquire(blocking=False, lock_ttl=30), "a lock was given twice")
    first.release()
    expect(second.acquire(blocking=True, lock_ttl=30, timeout=10), "the lock after its release")
    second.release()
