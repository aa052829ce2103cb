"""Keys and watches, on every member."""

import asyncio
import http.client
import os
import pathlib
import re
import resource
import statistics
import time

from checking import BOTH, CheckFailed, check, expect, expect_equal
from watching import Waiter, Stream


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


# Of the member's resident memory for each that waits: a tenth of etcd's 39 KiB, and less than the HTTP library's buffers would be.
CROWD_KIB_EACH = 5


def resident_kib(member):
    status = pathlib.Path(f"/proc/{member.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])


async def crowd(member, fire):
    """
    Opens `CROWD` long polls on one member, then lets `fire` make the event; gives the seconds until the last had it, and the
    KiB of memory that each took.
    """
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

    before = resident_kib(member)
    watches = [asyncio.create_task(one()) for _ in range(CROWD)]
    try:
        waiting = asyncio.create_task(all_armed.wait())
        done, _ = await asyncio.wait([*watches, waiting], timeout=90, return_when=asyncio.FIRST_COMPLETED)
        for early in done - {waiting}:
            early.result()
        expect(waiting in done, f"{armed} watches of {CROWD} are armed after 90 s")
        kib_each = (resident_kib(member) - before) / CROWD
        started = time.monotonic()
        await asyncio.to_thread(fire)
        told = await asyncio.wait_for(asyncio.gather(*watches), timeout=60)
        expect_equal(sum(told), CROWD, "watches that were told")
        return time.monotonic() - started, kib_each
    finally:
        for task in watches:
            task.cancel()


@check("watch-ten-thousand", targets=BOTH, timeout=240)
def watch_ten_thousand(ctx):
    # Each end of a watch is an open file, here and at the member, which inherits the limit.
    allow_open_files(CROWD + 1_000)
    members = ctx.static_cluster()
    seconds, kib_each = asyncio.run(crowd(members[0], lambda: ctx.put(members[1], "/crowd/key", "now")))
    expect(seconds < 30, f"{seconds:.1f} s until the last of {CROWD} watches was told")
    ctx.note(f"{kib_each:.1f} KiB each")
    expect(ctx.is_etcd or kib_each < CROWD_KIB_EACH, f"{kib_each:.1f} KiB for each watch")
    expect_equal(ctx.get(members[0], "/crowd/key").status, 200, "the member afterwards")


def timed_put(member):
    """Milliseconds of a write on a connection of its own."""
    started = time.monotonic()
    connection = http.client.HTTPConnection(member.url.removeprefix("http://"), timeout=10)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("PUT", "/v2/keys/cold", "value=v", form)
    status = connection.getresponse().status
    connection.close()
    expect(status in (200, 201), f"a write got {status}")
    return (time.monotonic() - started) * 1000


# A processor that slept costs a millisecond or two; a delayed acknowledgement, a new connection between members or a lazy start
# of something costs 40 and more.
COLD_MS = 25


@check("clients-interrupt-nobody")
def clients_interrupt_nobody(ctx):
    """Who serves clients takes the processor from nobody; the core and the log do. What an operator chose for all stays."""

    def policies(member):
        tasks = list(pathlib.Path(f"/proc/{member.process.pid}/task").iterdir())
        names = {task.name: (task / "comm").read_text().strip() for task in tasks}
        return {(name, os.sched_getscheduler(int(task))) for task, name in names.items()}

    addresses = ("--name", "m1", "-addr", "{client}", "-peer-addr", "{peer}")
    member = ctx.member("m1", *addresses).start()
    ctx.wait_healthy([member])
    found = policies(member)
    expect(("clients", os.SCHED_BATCH) in found, f"threads: {found}")
    expect(("clients", os.SCHED_OTHER) not in found, f"threads: {found}")
    expect({("core", os.SCHED_OTHER), ("log", os.SCHED_OTHER)} <= found, f"threads: {found}")
    chosen = ctx.member("m2", *addresses, prefix=("chrt", "--idle", "0")).start()
    ctx.wait_healthy([chosen])
    found = policies(chosen)
    expect({policy for _, policy in found} == {os.SCHED_IDLE}, f"threads: {found}")


@check("cold-requests", timeout=120)
def cold_requests(ctx):
    """The first request after the start, and one after silence, take as long as any other."""
    seen = []
    # The machine may be busy with something else; a path that is slow when cold is slow each time.
    for _ in range(5):
        members = ctx.static_cluster()
        first = [timed_put(member) for member in members]
        usual = statistics.median(timed_put(member) for _ in range(20) for member in members)
        silent = []
        for _ in range(3):
            time.sleep(1)
            silent.append(timed_put(members[0]))
        for member in members:
            member.stop()
        seen.append(f"first {max(first):.1f} ms, after silence {statistics.median(silent):.1f} ms, usual {usual:.1f} ms")
        if max(max(first), statistics.median(silent)) < usual + COLD_MS:
            ctx.note(seen[-1])
            return
    raise CheckFailed("; ".join(seen))
