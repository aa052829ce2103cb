"""What clients do: keys, time to live, watches, and the clients themselves."""

import asyncio
import http.client
import json
import queue
import re
import resource
import statistics
import threading
import time

from cluster import BOTH, CheckFailed, check, eventually, expect, expect_equal


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


@check("ttl-on-time", targets=BOTH)
def ttl_on_time(ctx):
    members = ctx.static_cluster()
    ctx.put(members[0], "/ttl/warm", "up")
    late = []
    for number, writer in enumerate(members):
        path = f"/ttl/{number}"
        sent = time.monotonic()
        index = ctx.put(writer, path, "v", ttl=2).node["modifiedIndex"]
        answered = time.monotonic()
        waiters = [Waiter(member, path, waitIndex=index + 1) for member in members]
        for waiter in waiters:
            event = waiter.event(10)
            name = waiter.member.name
            expect_equal(event["action"], "expire", f"the event on {name}")
            expect(waiter.at - sent >= 2.0, f"{path} expired early on {name}: {waiter.at - sent:.3f} s after it was sent")
            late.append(waiter.at - answered - 2.0)
            expect_equal(ctx.get(waiter.member, path).status, 404, f"{path} after its expiry on {name}")
    limit = ctx.expiry_lateness
    expect(max(late) <= limit, f"expired {max(late):.3f} s late, more than {limit:g} s (median {statistics.median(late):.3f} s)")


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


@check("ttl-through-a-leader-kill", targets=BOTH)
def ttl_through_leader_kill(ctx):
    """Never early; late by no more than there was no leader."""
    members = ctx.static_cluster()
    leader = ctx.leader(members)
    rest = [member for member in members if member is not leader]
    sent = time.monotonic()
    index = ctx.put(leader, "/ttl", "v", ttl=4).node["modifiedIndex"]
    waiters = [Waiter(member, "/ttl", waitIndex=index + 1) for member in rest]
    leader.kill()
    killed = time.monotonic()

    def writes():
        try:
            return ctx.http("PUT", rest[0].key("/after"), {"value": "v"}, timeout=5).status < 300
        except CheckFailed:
            return False

    eventually(writes, 10, "a write after the leader was killed", interval=0.01)
    leaderless = time.monotonic() - killed
    for waiter in waiters:
        expect_equal(waiter.event(15)["action"], "expire", f"the event on {waiter.member.name}")
        lived = waiter.at - sent
        longest = 4.0 + (killed - sent) + leaderless + ctx.expiry_lateness
        expect(lived >= 4.0, f"expired early on {waiter.member.name}: after {lived:.3f} s")
        expect(lived <= longest, f"expired after {lived:.3f} s on {waiter.member.name}; there was no leader for {leaderless:.3f} s")


@check("watch-recursive-and-past", targets=BOTH)
def watch(ctx):
    members = ctx.static_cluster()
    first = ctx.put(members[0], "/w/a/one", "1").node["modifiedIndex"]
    for member in members:
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
    """A stream of events into a queue."""

    def __init__(self, member, path, **query):
        super().__init__(daemon=True)
        self.events = queue.Queue()
        self.connection = http.client.HTTPConnection(member.host, member.client_port, timeout=60)
        self.connection.request("GET", member.key(path, wait="true", stream="true", **query).removeprefix(member.url))
        self.response = self.connection.getresponse()
        self.start()

    def run(self):
        try:
            while line := self.response.readline():
                self.events.put(json.loads(line))
        except (OSError, ValueError, http.client.HTTPException):
            pass

    def take(self, count, timeout=20):
        taken = []
        deadline = time.monotonic() + timeout
        while len(taken) < count:
            try:
                taken.append(self.events.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                raise CheckFailed(f"{len(taken)} events of {count} within {timeout:g} s") from None
        return taken


@check("watch-stream", targets=BOTH)
def stream(ctx):
    members = ctx.static_cluster()
    streams = [Stream(member, "/s", recursive="true") for member in members]
    written = [ctx.put(members[number % 3], f"/s/{number % 7}", number).node["modifiedIndex"] for number in range(60)]
    for member, each in zip(members, streams):
        indexes = [event["node"]["modifiedIndex"] for event in each.take(60)]
        expect_equal(indexes, written, f"the stream on {member.name}")


@check("watch-stream-from-the-past")
def stream_from_the_past(ctx):
    """The past first, then what comes, with nothing between them missing. (etcd gives one past event, then skips.)"""
    members = ctx.static_cluster()
    written = [ctx.put(members[0], "/s/key", number).node["modifiedIndex"] for number in range(30)]
    streams = [Stream(member, "/s", recursive="true", waitIndex=written[0]) for member in members]
    written += [ctx.put(members[1], "/s/key", number).node["modifiedIndex"] for number in range(30)]
    for member, each in zip(members, streams):
        indexes = [event["node"]["modifiedIndex"] for event in each.take(60)]
        expect_equal(indexes, written, f"the stream on {member.name}")


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
