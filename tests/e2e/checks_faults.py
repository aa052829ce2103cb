"""What goes wrong: kill -9, of the leader and of all; and what people get wrong."""

import http.client
import threading
import time

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
        self.acknowledged = {}
        self.times = []

    def run(self):
        count, at = 0, self.number
        while not self.stop.is_set():
            count += 1
            path, value = f"/load/{self.number}/{count}", f"{self.number}.{count}"
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


@check("kill-leader-under-load", targets=BOTH, timeout=180)
def kill_leader(ctx):
    members = ctx.static_cluster()
    stop = threading.Event()
    writers = [Writer(number, members, stop) for number in range(8)]
    for writer in writers:
        writer.start()
    for _ in range(2):
        time.sleep(1.5)
        leader = ctx.leader(members)
        leader.kill()
        killed = time.monotonic()

        def times_after(killed=killed):
            return sorted(at for writer in writers for at in list(writer.times) if at > killed)

        eventually(times_after, 20, f"a write is acknowledged after {leader.name} was killed")
        # The first is not the end of it: the leader that took it may not last.
        time.sleep(1.5)
        before = [at for writer in writers for at in list(writer.times) if at <= killed]
        expect(before, "no write was acknowledged before the kill")
        moments = [max(before), *times_after()]
        pause = max(late - early for early, late in zip(moments, moments[1:]))
        limit = LONGEST_WRITE_PAUSE[ctx.target]
        expect(pause < limit, f"no write was acknowledged for {pause:.2f} s after {leader.name} was killed")
        leader.start()
        ctx.wait_healthy(members)
    stop.set()
    for writer in writers:
        writer.join(15)
    acknowledged = {path: known for writer in writers for path, known in writer.acknowledged.items()}
    indexes = [index for _, index in acknowledged.values()]
    expect_equal(len(set(indexes)), len(indexes), "indexes are given once")
    for member in members:
        expect_all_there(ctx, member, acknowledged)


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
    members = ctx.static_cluster()
    first = ctx.put(members[0], "/history/0", "0").node["modifiedIndex"]
    for number in range(1, 20):
        ctx.put(members[number % 3], f"/history/{number}", str(number))
    ctx.put(members[0], "/lease/long", "v", ttl=100)
    ctx.put(members[0], "/lease/short", "v", ttl=3)
    stop = threading.Event()
    writers = [Writer(number, members, stop) for number in range(8)]
    for writer in writers:
        writer.start()
    time.sleep(2)
    for member in members:
        member.process.kill()
    stop.set()
    for member in members:
        member.process.wait()
    for writer in writers:
        writer.join(30)
    acknowledged = {path: known for writer in writers for path, known in writer.acknowledged.items()}
    expect(len(acknowledged) > 10, f"only {len(acknowledged)} writes were acknowledged")
    for member in members:
        member.start()
    ctx.wait_healthy(members)

    for member in members:
        expect_all_there(ctx, member, acknowledged)
        ttl = ctx.get(member, "/lease/long").node["ttl"]
        expect(60 < ttl <= 100, f"a TTL of 100 s is now {ttl} on {member.name}")
        for number in range(20):
            found = ctx.get(member, f"/history/{number}")
            expect_equal(found.node["value"], str(number), f"/history/{number} on {member.name}")
        if not ctx.is_etcd:
            # etcd keeps a thousand events; the load above was more.
            event = ctx.http("GET", member.key("/history", wait="true", recursive="true", waitIndex=first)).json
            expect_equal(event.get("node", {}).get("value"), "0", f"the past on {member.name}: {event}")
    eventually(lambda: ctx.get(members[1], "/lease/short").status == 404, 6, "the short TTL runs out after all")
    for member in members:
        ctx.put(member, f"/after/{member.name}", "v")


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


@check("refuses-bad-data-dir")
def bad_data_dir(ctx):
    # Root may read anything, so a directory that cannot be one stands for one that may not be read.
    blocked = ctx.member("file", "--name", "m1", "-addr", "{client}", "-peer-addr", "{peer}")
    blocked.data.write_text("not a directory")
    ctx.expect_refusal(blocked.start(), "file.data")
    nowhere = ctx.member(
        "nowhere", "--name", "m1", "-addr", "{client}", "-peer-addr", "{peer}", "--data-dir", "/proc/nowhere", data=False
    )
    ctx.expect_refusal(nowhere.start(), "/proc/nowhere")


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


@check("refuses-port-in-use", targets=("quorate",))
def port_in_use(ctx):
    first = ctx.old_style("m1").start()
    ctx.wait_healthy([first])
    for name, ports in (("client", (first.client_port, free_port())), ("peer", (free_port(), first.peer_port))):
        taken = first.client_port if name == "client" else first.peer_port
        ctx.expect_refusal(ctx.old_style(name, ports=ports).start(), str(taken))


@check("refuses-large-body", targets=BOTH)
def large_body(ctx):
    (member,) = ctx.static_cluster(size=1)
    connection = http.client.HTTPConnection(member.host, member.client_port, timeout=30)
    body = b"value=" + b"x" * (11 << 20)
    try:
        connection.request("PUT", "/v2/keys/large", body, {"Content-Type": "application/x-www-form-urlencoded"})
        status = connection.getresponse().status
        expect(status in (400, 413), f"a body of 11 MiB was answered {status}")
    except (ConnectionError, http.client.HTTPException) as error:
        # It may also hang up before it has read all of it.
        ctx.history.append(f"PUT of 11 MiB -> {error}")
    expect_equal(ctx.get(member, "/large").status, 404, "a key that was too large")
    ctx.put(member, "/small", "v")
