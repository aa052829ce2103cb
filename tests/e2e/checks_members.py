"""Membership: members come, get their vote, are replaced and leave while writes go on; and what is refused."""

import contextlib
import json
import shutil
import socket
import threading
import time

from checking import check, eventually, expect, expect_equal
from checks_faults import SMALL_LOGS, expect_all_there, start_writers, stop_writers, write_times
from cluster import free_port, request

# Two election timeouts with the default settings.
LONGEST_PAUSE = 2.0


def listed(ctx, member):
    return {entry["id"]: entry for entry in ctx.http("GET", f"{member.url}/v2/members").json["members"]}


def id_of(ctx, asked, member):
    ids = [found for found, entry in listed(ctx, asked).items() if entry["name"] == member.name]
    expect_equal(len(ids), 1, f"members named {member.name} on {asked.name}")
    return ids[0]


def send(ctx, method, url, body=None):
    """A request of the members API, with the content type that it wants."""
    argv = ["curl", "--silent", "--max-time", "15", "-X", method, "-w", "\n%{http_code}", url]
    if body is not None:
        argv += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    done = ctx.run(*argv)
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def etcdctl(ctx, member, *arguments, program="etcdctl"):
    env = {"ETCDCTL_API": "2"}
    return ctx.run(ctx.programs[program], "--endpoints", member.url, *arguments, env=env)


def add(ctx, asked, name, extra=SMALL_LOGS, program="etcdctl", by_way_of=None):
    """Adds a member as an operator does, with etcdctl and what it prints; gives the member, not yet started.

    `by_way_of`: a relay to its peer port, under whose address the others are to know it.
    """
    ports = (free_port(), free_port())
    address = f"127.0.0.1:{ports[1]}"
    if by_way_of:
        by_way_of.serve(address)
        address = by_way_of.address
    done = etcdctl(ctx, asked, "member", "add", name, f"http://{address}", program=program)
    expect_equal(done.returncode, 0, f"etcdctl member add {name}: {done.stdout}{done.stderr}")
    settings = dict(line.split("=", 1) for line in done.stdout.splitlines() if line.startswith("ETCD_"))
    settings = {key: value.strip('"') for key, value in settings.items()}
    expect_equal(settings["ETCD_INITIAL_CLUSTER_STATE"], "existing", "what etcdctl says to start it with")
    return ctx.member(
        name, "--listen-client-urls", "http://{client}", "--advertise-client-urls", "http://{client}",
        "--listen-peer-urls", "http://{peer}", "--initial-advertise-peer-urls", f"http://{address}", *extra,
        ports=ports, env=settings,
    )  # fmt: skip


def votes(ctx, asked, member):
    """Whether it is started and has a vote, as another says."""
    entry = next((entry for entry in listed(ctx, asked).values() if entry["name"] == member.name), None)
    return entry is not None and not entry.get("isLearner")


def join(ctx, asked, name, **options):
    member = add(ctx, asked, name, **options).start()
    eventually(lambda: votes(ctx, asked, member), 20, f"{name} has caught up and votes")
    ctx.wait_healthy([member])
    return member


def remove(ctx, asked, member, program="etcdctl"):
    gone = id_of(ctx, asked, member)
    done = etcdctl(ctx, asked, "member", "remove", gone, program=program)
    expect_equal(done.stdout.strip(), f"Removed member {gone} from cluster", f"etcdctl member remove: {done.stderr}")
    expect(gone not in listed(ctx, asked), f"{member.name} is still listed")


def longest_pause(writers, since, until):
    moments = [since, *[at for at in write_times(writers, since) if at < until], until]
    return max(late - early for early, late in zip(moments, moments[1:]))


@check("members-grow-and-shrink", timeout=240)
def grow_and_shrink(ctx):
    """One, three, five, seven and back, leaders included, under load; nothing lost, no long pause."""
    first = ctx.static_cluster(size=1, extra=SMALL_LOGS)[0]
    serving = [first]
    stop, writers = start_writers(serving, count=4)
    for number in range(2, 8):
        started = time.monotonic()
        program = "real-etcdctl" if number == 3 else "etcdctl"
        serving.append(join(ctx, serving[-1], f"m{number}", program=program))
        pause = longest_pause(writers, started, time.monotonic())
        expect(pause < LONGEST_PAUSE, f"no write was acknowledged for {pause:.2f} s while the {number}th member joined")
    for number in range(6):
        # The leader, and one that follows, in turn; asked of a member that stays.
        leader = ctx.leader(serving)
        victim = leader if number % 2 == 0 else next(member for member in serving if member is not leader)
        asked = next(member for member in serving if member is not victim)
        serving.remove(victim)
        started = time.monotonic()
        remove(ctx, asked, victim)
        victim.stop()
        time.sleep(0.3)
        pause = longest_pause(writers, started, time.monotonic())
        what = "the leader" if victim is leader else "a follower"
        expect(pause < LONGEST_PAUSE, f"no write was acknowledged for {pause:.2f} s while {what} of {len(serving) + 1} left")
    acknowledged = stop_writers(stop, writers)
    ctx.note(f"{len(acknowledged)} writes acknowledged")
    expect_equal([entry["name"] for entry in listed(ctx, serving[0]).values()], [serving[0].name], "who is left")
    expect_all_there(ctx, serving[0], acknowledged)
    gone = id_of(ctx, serving[0], serving[0])
    status, text = send(ctx, "DELETE", f"{serving[0].url}/v2/members/{gone}")
    expect(status == 409 and "last voting member" in text, f"removing the last member: {status} {text}")


@check("members-change-while-one-is-down", timeout=180)
def change_while_one_is_down(ctx):
    """A killed member is replaced; what would leave no quorum is refused with its figures."""
    members = ctx.static_cluster(extra=SMALL_LOGS)
    stop, writers = start_writers(members, count=4)
    time.sleep(0.5)
    leader = ctx.leader(members)
    dead, other = [member for member in members if member is not leader]
    dead.kill()
    time.sleep(1.5)
    status, text = send(ctx, "DELETE", f"{leader.url}/v2/members/{id_of(ctx, leader, other)}")
    expect(status == 409 and "not enough started members: of the 2 voters" in text, f"removing one of two: {status} {text}")
    remove(ctx, leader, dead)
    members.remove(dead)
    # With two of two a killed member stops writes until it is back, but loses none and does not block the change.
    fresh = add(ctx, leader, "m4").start()
    other.kill()
    time.sleep(0.5)
    other.start()
    eventually(lambda: votes(ctx, leader, fresh), 20, "m4 has caught up and votes")
    ctx.wait_healthy([fresh, other])
    members.append(fresh)
    time.sleep(0.5)
    acknowledged = stop_writers(stop, writers)
    for member in members:
        expect_all_there(ctx, member, acknowledged)
    # It does not come back by itself, and says why.
    dead.start()
    eventually(lambda: "was removed from its cluster" in dead.output(), 10, "the removed member says so in its log")
    for query in ({}, {"quorum": "false"}, {"wait": "true"}):
        answer = ctx.http("GET", dead.key("/load", **query))
        expect(answer.status == 503 and "permanently removed" in answer.text, f"{query} of a removed member: {answer.text}")
    expect(not dead.healthy(), "a removed member calls itself healthy")


@check("members-led-by-a-stranger", timeout=150)
def led_by_a_stranger(ctx):
    """A member that was away comes back to a leader that was added meanwhile, with nobody else there to tell it of that one."""
    members = ctx.static_cluster(extra=SMALL_LOGS)
    away = next(member for member in members if not member.leads())
    there = [member for member in members if member is not away]
    ctx.put(there[0], "/before", "v")
    away.kill()
    stranger = join(ctx, there[0], "m4")
    leader = ctx.leader([*there, stranger])
    left = next(member for member in there if member is not leader)
    other = next(member for member in there if member is not left)
    remove(ctx, other, left)
    left.kill()
    ctx.put(other, "/meanwhile", "v")
    # Of three voters the stranger is left, and the one that was away, which lacks too much to lead.
    other.kill()
    started = time.monotonic()
    away.start()
    eventually(lambda: away.healthy() and stranger.leads(), 30, "the member that was away follows the new one")
    ctx.note(f"followed after {time.monotonic() - started:.1f} s")
    for path in ("/before", "/meanwhile"):
        expect_equal(ctx.get(away, path).node["value"], "v", f"{path} on the member that was away")
    ctx.put(away, "/through/away", "v")
    expect_equal(ctx.get(stranger, "/through/away").node["value"], "v", "what the member that was away acknowledged")
    eventually(lambda: sorted(entry["name"] for entry in listed(ctx, away).values()) == sorted(m.name for m in (away, other, stranger)),
               10, "the member that was away lists the new one")  # fmt: skip
    other.start()
    ctx.wait_healthy([away, other, stranger])


class Relay:
    """Passes bytes to a peer port and back; cuts the first connection on which so many went there, in the middle of it."""

    def __init__(self, ctx, cut_after):
        self.cut_after, self.cut = cut_after, False
        self.passed = []  # bytes to the member, by connection
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", free_port()))
        ctx.cleanups.append(self.listener.close)

    @property
    def address(self):
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self, to):
        host, port = to.split(":")
        threading.Thread(target=self.accept, args=((host, int(port)),), daemon=True).start()

    def accept(self, to):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                try:
                    server = socket.create_connection(to)
                except OSError:
                    client.close()
                    continue
                with self.lock:
                    self.passed.append(0)
                    number = len(self.passed) - 1
                for source, sink, counts in ((client, server, number), (server, client, None)):
                    threading.Thread(target=self.pump, args=(source, sink, counts), daemon=True).start()

    def pump(self, source, sink, number):
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(1 << 16):
                sink.sendall(data)
                if number is None:
                    continue
                with self.lock:
                    self.passed[number] += len(data)
                    if not self.cut and self.passed[number] >= self.cut_after:
                        self.cut = True
                        break
            for end in (source, sink):
                end.shutdown(socket.SHUT_RDWR)


@check("members-snapshot-goes-on", timeout=150)
def snapshot_goes_on(ctx):
    """A new member gets the whole state while writes go on, over a connection that breaks; what had come is not sent again."""
    mib = 1 << 20
    first = ctx.static_cluster(size=1, extra=SMALL_LOGS)[0]
    value = "v" * (mib // 2)
    for number in range(64):
        ctx.put(first, f"/large/{number}", value)
    stop, writers = start_writers([first], count=2)
    relay = Relay(ctx, 20 * mib)
    fresh = add(ctx, first, "m2", by_way_of=relay)
    started = time.monotonic()
    fresh.start()
    eventually(lambda: votes(ctx, first, fresh), 60, "m2 has caught up and votes")
    ctx.wait_healthy([first, fresh])
    ctx.note(f"caught up after {time.monotonic() - started:.1f} s")
    acknowledged = stop_writers(stop, writers)
    expect(relay.cut, f"the connection was not cut: {relay.passed}")
    passed = sum(relay.passed)
    ctx.note(f"{passed / mib:.1f} MiB went to it")
    # 32 MiB once, and what was on its way when the connection broke; from the beginning again it would be 52.
    expect(passed < 44 * mib, f"{passed / mib:.1f} MiB went to the new member: {relay.passed}")
    expect_all_there(ctx, fresh, acknowledged)
    for number in (0, 63):
        expect(ctx.get(fresh, f"/large/{number}").node["value"] == value, f"/large/{number} on the new member")
    left = [path.name for path in (fresh.data / "member").iterdir() if path.name.startswith("incoming")]
    expect_equal(left, [], "what arrived, beside what it was made into")


@check("members-wiped", timeout=120)
def wiped(ctx):
    """A member that lost its data does not vote under its old name; it is told how to come back, and does."""
    members = ctx.static_cluster(extra=SMALL_LOGS)
    ctx.put(members[0], "/kept", "yes")
    lost = next(member for member in members if not member.leads())
    asked = next(member for member in members if member is not lost)
    lost.stop()
    shutil.rmtree(lost.data)
    ctx.expect_refusal(lost.start(), r"etcdctl member remove", one_line=False)
    ctx.put(asked, "/meanwhile", "yes")
    remove(ctx, asked, lost)
    fresh = join(ctx, asked, lost.name + "b")
    expect_equal(ctx.get(fresh, "/kept").node["value"], "yes", "/kept on the new member")
    ctx.put(fresh, "/after", "yes")


@check("members-standby", timeout=120)
def standby(ctx):
    """A machine beyond the token's size follows and serves without a vote; one command gives it one."""
    token = ctx.new_token(ctx.discovery_service())
    members = [ctx.old_style(f"m{number}", token).start() for number in (1, 2, 3)]
    ctx.expect_forms(members)
    fourth = ctx.old_style("m4", token).start()
    ctx.wait_healthy([fourth])
    eventually(lambda: "m4" in [entry["name"] for entry in listed(ctx, members[0]).values()], 10, "m4 is listed")
    entry = next(entry for entry in listed(ctx, members[0]).values() if entry["name"] == "m4")
    expect_equal(entry.get("isLearner"), True, "m4 has no vote")
    ctx.put(fourth, "/through/standby", "v")
    expect_equal(ctx.get(members[1], "/through/standby").node["value"], "v", "what the standby acknowledged")
    expect_equal(ctx.get(fourth, "/formed/0").node["value"], "m1", "what was written before it came")
    fourth.kill()
    fourth.start()
    ctx.wait_healthy([fourth])
    expect_equal(len(listed(ctx, fourth)), 4, "members after the standby's restart")
    done = etcdctl(ctx, members[0], "member", "promote", entry["id"])
    expect_equal(done.stdout.strip(), f"Promoted member {entry['id']}", f"etcdctl member promote: {done.stderr}")
    expect(votes(ctx, members[0], fourth), "m4 votes")
    # Four members: with two gone there is no quorum, with one gone there is, the new one counted.
    members[0].kill()
    ctx.put(fourth, "/after", "v")
    members[1].kill()
    try:
        answer = request("PUT", fourth.key("/no/quorum"), {"value": "v"}, timeout=3)
        expect(answer.status >= 500, f"a write with two of four: {answer.text}")
    except OSError:
        pass


@check("members-force-new-cluster", timeout=120)
def force_new_cluster(ctx):
    """A lone survivor goes on with all it has, and the others cannot disturb it."""
    members = ctx.static_cluster(extra=SMALL_LOGS)
    for number in range(300):
        ctx.put(members[number % 3], f"/kept/{number}", number)
    index = ctx.put(members[0], "/last", "v", ttl=60).index
    for member in members:
        member.kill()
    survivor, *others = members
    survivor.argv.append("--force-new-cluster")
    survivor.start()
    ctx.wait_healthy([survivor])
    expect_equal([entry["name"] for entry in listed(ctx, survivor).values()], ["m1"], "who is left")
    expect_equal(len(ctx.get(survivor, "/kept").node["nodes"]), 300, "keys kept")
    expect(ctx.get(survivor, "/last").index >= index, "the index went back")
    survivor.kill()
    survivor.argv.pop()
    survivor.start()
    ctx.wait_healthy([survivor])
    others[0].start()
    eventually(lambda: "was removed from its cluster" in others[0].output(), 10, "the other is told that it was removed")
    fresh = join(ctx, survivor, "m9")
    ctx.put(fresh, "/grown", "again")
    expect_equal(ctx.get(survivor, "/grown").node["value"], "again", "/grown")


@check("members-force-new-cluster-of-a-removed", timeout=90)
def force_new_cluster_of_a_removed(ctx):
    """Even one whose log ends with its own removal, when nobody else is left."""
    stays, gone = ctx.static_cluster(size=2)
    for number in range(50):
        ctx.put(stays, f"/kept/{number}", number)
    remove(ctx, stays, gone)
    for member in (stays, gone):
        member.kill()
    gone.argv.append("--force-new-cluster")
    for _ in range(2):
        gone.start()
        ctx.wait_healthy([gone])
        expect_equal([entry["name"] for entry in listed(ctx, gone).values()], [gone.name], "who is left")
        expect_equal(len(ctx.get(gone, "/kept").node["nodes"]), 50, "keys kept")
        ctx.put(gone, "/goes", "on")
        gone.kill()
        gone.argv = [arg for arg in gone.argv if arg != "--force-new-cluster"]


@check("members-refusals", timeout=90)
def refusals(ctx):
    """What cannot be is refused in etcd's words, and changes nothing."""
    members = ctx.static_cluster()
    url = f"{members[1].url}/v2/members"
    # A member has made its client URLs known a moment after it serves.
    published = lambda: all(entry["clientURLs"] for entry in listed(ctx, members[0]).values())  # noqa: E731
    eventually(published, 10, "the members' client URLs are known")
    before = listed(ctx, members[0])
    own, peer = next((found, entry["peerURLs"]) for found, entry in before.items() if entry["name"] == "m1")
    table = [
        ("POST", "", {"peerURLs": peer}, 409, "peerURL exists"),
        ("POST", "", {"peerURLs": []}, 400, "no valid URLs given"),
        ("POST", "", {"peerURLs": ["ftp://h:1"]}, 400, "URL scheme must be http"),
        ("POST", "", {"peerURLs": ["http://h"]}, 400, "host:port"),
        ("POST", "", {"peerURLs": ["http://h:1/p"]}, 400, "must not contain a path"),
        ("POST", "", "text", 400, ""),
        ("PUT", f"/{own}", {"peerURLs": before[next(i for i in before if i != own)]["peerURLs"]}, 409, "peerURL exists"),
        ("PUT", "/1234", {"peerURLs": ["http://127.0.0.1:9"]}, 404, "No such member: 1234"),
        ("DELETE", "/1234", None, 404, "No such member: 1234"),
        ("DELETE", "/xyz", None, 404, "No such member: xyz"),
        ("POST", "/1234/promote", None, 404, "No such member: 1234"),
    ]
    for method, path, body, status, text in table:
        got, answer = send(ctx, method, url + path, body)
        expect(got == status and text in answer, f"{method} {path} {body}: {got} {answer}")
    done = ctx.run("curl", "--silent", "-X", "POST", "-d", "x", url)
    expect("Bad Content-Type" in done.stdout, f"a body of another type: {done.stdout}")
    expect_equal(listed(ctx, members[2]), before, "the members after all that")
    # Added and taken back before it was ever started; its id never comes back.
    status, text = send(ctx, "POST", url, {"peerURLs": ["http://127.0.0.1:9"]})
    expect_equal(status, 201, f"adding a member: {text}")
    ghost = json.loads(text)["id"]
    expect_equal(send(ctx, "PUT", f"{url}/{ghost}", {"peerURLs": ["http://127.0.0.1:10"]})[0], 204, "updating it")
    expect_equal(listed(ctx, members[1])[ghost]["peerURLs"], ["http://127.0.0.1:10"], "its new URL")
    expect_equal(send(ctx, "DELETE", f"{url}/{ghost}")[0], 204, "removing it")
    status, text = send(ctx, "DELETE", f"{url}/{ghost}")
    expect(status == 410 and "permanently removed" in text, f"removing it twice: {status} {text}")
    # A machine that nobody added.
    stranger = ctx.member(
        "m9", "--name", "m9", "--listen-client-urls", "http://{client}", "--listen-peer-urls", "http://{peer}",
        "--advertise-client-urls", "http://{client}", "--initial-advertise-peer-urls", "http://{peer}",
        "--initial-cluster", "m9=http://{peer}," + ",".join(f"m1={u}" for u in peer),
        "--initial-cluster-state", "existing",
    )  # fmt: skip
    ctx.expect_refusal(stranger.start(), "etcdctl member add m9", timeout=30)
    # By its name, at the peer port, as with etcd 0.4, and through itself.
    gone = next(member for member in members if member is not ctx.leader(members))
    status, _ = send(ctx, "DELETE", f"http://{gone.host}:{gone.peer_port}/v2/admin/machines/{gone.name}")
    expect_equal(status, 200, "a removal by name")
    rest = [member for member in members if member is not gone]
    eventually(lambda: gone.name not in {entry["name"] for entry in listed(ctx, rest[0]).values()}, 5, "it is removed")
    ctx.put(rest[1], "/after", "v")
