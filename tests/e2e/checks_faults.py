"""What goes wrong: kill -9, of the leader and of all; and what people get wrong."""

import contextlib
import http.client
import os
import re
import shutil
import socket
import threading
import time

from checks_api import Stream
from cluster import BOTH, check, eventually, expect, expect_equal, free_port, request

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


@check("refuses-unknown-flag")
def unknown_flag(ctx):
    ctx.expect_refusal(ctx.member("m1", "--no-such-flag").start(), "no-such-flag", one_line=True)


@check("refuses-malformed-url")
def malformed_url(ctx):
    for number, url in enumerate(("http//127.0.0.1:1", "127.0.0.1", "http://127.0.0.1:99999", "ftp://127.0.0.1:1")):
        arguments = ["--listen-client-urls", url, "--advertise-client-urls", url]
        ctx.expect_refusal(ctx.member(f"m{number}", *arguments).start(), "url", one_line=True)


@check("refuses-bad-settings")
def bad_settings(ctx):
    for number, (arguments, said) in enumerate((
        (["--name"], "argument.*name"),
        (["serve"], "serve"),
        (["--heartbeat-interval", "soon"], "soon.*heartbeat-interval"),
        (["--heartbeat-interval", "1000", "--election-timeout", "1000"], "election-timeout.*heartbeat-interval"),
        (["--snapshot-count", "0"], "snapshot-count"),
        (["--initial-cluster-state", "old"], "old.*initial-cluster-state"),
        (["--name", "me", "--initial-cluster", "you=http://127.0.0.1:7001"], "me.*initial.cluster"),
        (["--name", "me", "--initial-cluster", "me=http://"], "initial-cluster"),
        (["--cert-file", "/etc/ssl/cert.pem"], "cert-file|TLS"),
        (["-addr", "127.0.0.1"], "addr"),
        (["-addr", "127.0.0.1:port"], "addr"),
        (["-discovery", "http://"], "discovery"),
    )):  # fmt: skip
        ctx.expect_refusal(ctx.member(f"m{number}", *arguments, data=False).start(), said)
    ctx.expect_refusal(ctx.member("env", env={"ETCD_HEARTBEAT_INTERVAL": "soon"}).start(), "soon")


@check("refuses-bad-data-dir")
def bad_data_dir(ctx):
    addresses = ("--name", "m1", "-addr", "{client}", "-peer-addr", "{peer}")
    blocked = ctx.member("file", *addresses)
    blocked.data.write_text("not a directory")
    ctx.expect_refusal(blocked.start(), "file.data.*directory")
    nowhere = ctx.member("nowhere", *addresses, "--data-dir", "/proc/nowhere", data=False)
    ctx.expect_refusal(nowhere.start(), "/proc/nowhere.*another")
    # Root may read anything; somebody else may not.
    ctx.dir.chmod(0o755)
    unreadable = ctx.member("unreadable", *addresses, prefix=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
    program = ctx.dir / "quorate"
    shutil.copy(ctx.programs["quorate"], program)
    unreadable.argv[unreadable.argv.index(ctx.programs["quorate"])] = program
    unreadable.data.mkdir(mode=0o700)
    ctx.expect_refusal(unreadable.start(), "unreadable.data.*denied.*belong")
    strange = ctx.member("strange", *addresses)
    strange.data.mkdir()
    (strange.data / "holiday.jpg").write_text("x")
    ctx.expect_refusal(strange.start(), "strange.data.*holiday.jpg")
    expect_equal(os.listdir(strange.data), ["holiday.jpg"], "what is in a directory that was refused")

    real = ctx.etcd("real").start()
    ctx.wait_healthy([real])
    ctx.put(real, "/of", "etcd")
    real.kill()
    ours = ctx.member("ours", *addresses, "--data-dir", real.data, data=False)
    ctx.expect_refusal(ours.start(), "etcd")
    real.start()
    ctx.wait_healthy([real])
    expect_equal(ctx.get(real, "/of", quorum="true").node["value"], "etcd", "what the real etcd had")


@check("refuses-damaged-data")
def damaged_data(ctx):
    """Bytes that are not what was written are never served: the member says which file, or knows better from elsewhere."""
    (member,) = ctx.static_cluster(size=1, extra=SMALL_LOGS)
    for number in range(500):
        ctx.put(member, f"/damage/{number}", f"value-{number}")
    member.kill()
    files = sorted(path for path in member.data.rglob("*") if path.is_file() and path.stat().st_size > 64)
    intact = ctx.dir / "intact"
    shutil.copytree(member.data, intact)
    expect(len(files) >= 4, f"files in a data directory: {files}")
    refused = []
    for path in files:
        shutil.rmtree(member.data)
        shutil.copytree(intact, member.data)
        content = bytearray(path.read_bytes())
        middle = len(content.rstrip(b"\0")) // 2
        content[middle : middle + 16] = bytes(byte ^ 0xA5 for byte in content[middle : middle + 16])
        path.write_bytes(content)
        member.start()
        eventually(lambda: not member.alive or member.healthy(), 20, f"with {path} damaged the member starts, or ends")
        if member.alive:
            for number in range(0, 500, 7):
                expect_equal(ctx.get(member, f"/damage/{number}").node["value"], f"value-{number}", f"with {path} damaged")
            member.kill()
        else:
            ctx.expect_refusal(member, f"{member.data.name}.*damaged|damaged.*{member.data.name}")
            refused.append(path.relative_to(member.data))
    ctx.note(f"{len(files)} files damaged one by one, refused for {', '.join(map(str, refused))}")


@check("refuses-data-dir-in-use", targets=("quorate",))
def data_dir_in_use(ctx):
    first = ctx.old_style("m1").start()
    ctx.wait_healthy([first])
    second = ctx.member(
        "second", "-name", "m1", "-addr", "{client}", "-peer-addr", "{peer}", "-data-dir", first.data, data=False
    )
    ctx.expect_refusal(second.start(), "in use|lock")
    ctx.put(first, "/still", "there")


@check("refuses-data-dir-of-another-cluster")
def data_dir_of_another_cluster(ctx):
    """A member that comes with another cluster's data is not let in, and says why."""
    (stranger,) = ctx.static_cluster(size=1, token="another")
    ctx.put(stranger, "/of", "another cluster")
    stranger.stop()
    members = ctx.static_cluster()
    members[0].stop()
    index = members[0].argv.index("--data-dir") + 1
    members[0].argv[index] = stranger.data
    ctx.expect_refusal(members[0].start(), "cluster")
    for member in members[1:]:
        answer = ctx.get(member, "/of")
        expect_equal(answer.status, 404, f"/of on {member.name}")


@check("refuses-data-dir-of-another-member")
def data_dir_of_another_member(ctx):
    """Three of one cluster and one of another with the default token: no directory is taken for another."""
    members = ctx.static_cluster(token="etcd-cluster")
    (stranger,) = ctx.static_cluster(size=1, token="etcd-cluster")
    ctx.put(stranger, "/of", "another cluster")
    running = members[1].data
    members[0].stop()
    stranger.stop()
    place = members[0].argv.index("--data-dir") + 1
    own = members[0].argv[place]
    for data, said in ((running, "in use"), (stranger.data, f"{stranger.data.name}.*cluster.*-data-dir")):
        members[0].argv[place] = data
        ctx.expect_refusal(members[0].start(), said)
    members[1].stop()
    members[0].argv[place] = running
    ctx.expect_refusal(members[0].start(), f'{running.name}.*"m2".*"m1"')
    members[0].argv[place] = own
    for member in (*members[:2], stranger):
        member.start()
    ctx.wait_healthy([*members, stranger])
    expect_equal(ctx.get(stranger, "/of").node["value"], "another cluster", "/of")
    expect_equal(ctx.get(members[0], "/of").status, 404, "/of elsewhere")


@check("refuses-port-in-use", targets=("quorate",))
def port_in_use(ctx):
    first = ctx.old_style("m1").start()
    ctx.wait_healthy([first])
    for name, ports in (("client", (first.client_port, free_port())), ("peer", (free_port(), first.peer_port))):
        taken = first.client_port if name == "client" else first.peer_port
        ctx.expect_refusal(ctx.old_style(name, ports=ports).start(), str(taken))


@check("survives-noise", targets=("quorate",))
def noise(ctx):
    """Whatever comes over a socket, the member goes on; who says nothing does not keep others out."""
    members = ctx.static_cluster()
    garbage = (
        b"\0" * 4096,
        os.urandom(65536),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(4096),
        b"GET /v2/keys/" + b"a" * (1 << 20) + b" HTTP/1.1\r\n\r\n",
        b"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"GET /v2/keys/%ff%00?wait=%zz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
    )
    silent = []
    for port in (members[0].client_port, members[0].peer_port):
        for _ in range(200):
            silent.append(socket.create_connection((members[0].host, port), timeout=5))
        for data in garbage:
            with contextlib.suppress(OSError), socket.create_connection((members[0].host, port), timeout=5) as connection:
                connection.settimeout(1)
                connection.sendall(data)
                connection.recv(4096)
    for number in range(10):
        ctx.put(members[0], f"/noise/{number}", "v")
    expect("panicked" not in members[0].log.read_text(errors="replace"), f"{members[0].name} panicked")
    for connection in silent:
        connection.close()


@check("refuses-large-body", targets=BOTH)
def large_body(ctx):
    (member,) = ctx.static_cluster(size=1)
    connection = http.client.HTTPConnection(member.host, member.client_port, timeout=30)
    body = b"value=" + b"x" * (11 << 20)
    try:
        connection.request("PUT", "/v2/keys/large", body, {"Content-Type": "application/x-www-form-urlencoded"})
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace").strip()
        expect(answer.status in (400, 413), f"a body of 11 MiB was answered {answer.status} {text!r}")
        expect(ctx.is_etcd or (re.search("large|limit|bytes", text) and "\n" not in text), f"it was answered {text!r}")
    except (ConnectionError, http.client.HTTPException) as error:
        # It may also hang up before it has read all of it.
        ctx.history.append(f"PUT of 11 MiB -> {error}")
    expect_equal(ctx.get(member, "/large").status, 404, "a key that was too large")
    ctx.put(member, "/small", "v")
