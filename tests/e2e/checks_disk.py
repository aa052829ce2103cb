"""What disks do to members: full ones, broken ones, slow ones. Members' disks are small file systems in memory, or files
whose system calls a preloaded library (`faulty_disk.c`) lets fail or wait."""

import errno
import os
import subprocess
import time

from checking import check, eventually, expect, expect_equal
from cluster import request

MIB = 1 << 20
DISK_MIB = 64
# Less free space than this is "nearly full" on such a disk, and a quarter more is enough again.
RESERVE_MIB = DISK_MIB // 10


def give_own_disk(ctx, member, mib=DISK_MIB):
    """Mounts a small file system where the member's data goes."""
    member.data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tmpfs", member.data], check=True)
    ctx.cleanups.append(lambda: subprocess.run(["umount", "--lazy", member.data], check=False))


def free_mib(member):
    stat = os.statvfs(member.data)
    return stat.f_bavail * stat.f_frsize / MIB


def ballast(ctx, member):
    # Beside the members' own files, where a data directory holds nothing: under a name that is theirs to remove.
    return member.data / "member" / "ballast.tmp"


def fill(ctx, member, leave_mib):
    """Something else takes the member's disk, but for so much; 0: to the last byte."""
    with open(ballast(ctx, member), "ab") as file:
        while free_mib(member) > leave_mib:
            count = int(min(MIB, max((free_mib(member) - leave_mib) * MIB, 4096)))
            try:
                os.write(file.fileno(), b"x" * count)
            except OSError as error:
                expect(error.errno == errno.ENOSPC, f"filling the disk of {member.name}: {error}")
                return


def empty(ctx, member):
    ballast(ctx, member).unlink(missing_ok=True)


def health(ctx, member):
    return ctx.http("GET", f"{member.url}/health").text


def metric(ctx, member, name):
    lines = ctx.http("GET", f"{member.url}/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(name + " ")), None)


def disk_cluster(ctx, extra=()):
    members = ctx.static_cluster(start=False, extra=extra)
    for member in members:
        give_own_disk(ctx, member)
        member.start()
    ctx.wait_healthy(members)
    return members


def expect_refused(ctx, member, path):
    answer = ctx.http("PUT", member.key(path), {"value": "v"})
    expect_equal((answer.status, answer.json["errorCode"]), (507, 300), f"a write on {member.name} without room")
    expect("no space" in answer.json["cause"], f"the refusal does not say why: {answer.text}")


def reads(member, path):
    """Whether the member's own state is there and has the key."""
    try:
        return request("GET", member.key(path, quorum="false"), timeout=2).status == 200
    except OSError:
        return False


def taken(ctx, member, path, **form):
    """Whether a write is taken."""
    try:
        return request("PUT", member.key(path), {"value": "v"} | form, timeout=5).status in (200, 201)
    except OSError:
        return False


@check("disk-full-of-one-member", timeout=120)
def full_follower(ctx):
    """To the last byte: the others go on, it reads on, and comes back by itself; killed meanwhile, it starts."""
    members = disk_cluster(ctx)
    ctx.put(members[0], "/announce/web", "10.0.0.7:80", ttl=600)
    leader = ctx.leader(members)
    full = next(member for member in members if member is not leader)
    rest = [member for member in members if member is not full]
    fill(ctx, full, 0)
    # More than the log has allocated already.
    value = "v" * 60_000
    for number in range(100):
        ctx.put(rest[number % 2], f"/during/{number % 10}", f"{number} {value}")
    eventually(lambda: "DISKFULL" in health(ctx, full), 5, f"{full.name} says that its disk is full")
    expect('"health":"true"' in health(ctx, full), "it is healthy: it answers reads")
    for query in ({}, {"quorum": "false"}):
        expect_equal(ctx.get(full, "/announce/web", **query).node["value"], "10.0.0.7:80", f"a key read there {query}")
    expect_equal(ctx.get(full, "/during/9").node["value"][:2], "99", "what was written since, read there")
    # Its clients' writes are the leader's business.
    ctx.put(full, "/during/through-it", "v")
    expect("the disk is full" in full.output(), "no line in the log says so")
    full.kill()
    full.start()
    eventually(lambda: reads(full, "/announce/web"), 20, f"{full.name} starts with a full disk")
    ctx.put(rest[0], "/during/restarted", "v")
    emptied = time.monotonic()
    empty(ctx, full)
    eventually(lambda: metric(ctx, full, 'quorate_alarm{type="DISKFULL"}') == 0, 10, "the alarm is over")
    eventually(lambda: health(ctx, full) == '{"health":"true"}', 10, f"{full.name} is well again")
    ctx.note(f"well {time.monotonic() - emptied:.1f} s after there was space")
    # It counts again: with one of the others gone it makes the quorum.
    rest[0].kill()
    ctx.leader([full, rest[1]], timeout=15)
    eventually(lambda: taken(ctx, full, "/after"), 15, "a write of a quorum with it")
    for path in ("/during/through-it", "/during/restarted", "/announce/web"):
        expect_equal(ctx.get(full, path).status, 200, f"{path} on {full.name}")


@check("disk-full-of-the-leader", timeout=120)
def full_leader(ctx):
    """It hands over to a member that has room before its disk is full; nobody's writes are refused for long."""
    members = disk_cluster(ctx)
    leader = ctx.leader(members)
    rest = [member for member in members if member is not leader]
    ctx.put(leader, "/before", "v")
    fill(ctx, leader, RESERVE_MIB / 2)
    successor = eventually(lambda: next((member for member in rest if member.leads()), None), 10, "another member leads")
    eventually(lambda: taken(ctx, leader, "/after"), 5, "a write on the former leader")
    expect("NOSPACE" in health(ctx, leader), "its health does not say that space is short")
    expect_equal(health(ctx, successor), '{"health":"true"}', "the health of the new leader")
    fill(ctx, leader, 0)
    for number in range(30):
        ctx.put(rest[number % 2], f"/more/{number}", "v" * 5000)
    expect_equal(ctx.get(leader, "/more/29").status, 200, "what was written since, read on the former leader")
    expect(not leader.leads(), "it leads again with a full disk")
    empty(ctx, leader)
    eventually(lambda: health(ctx, leader) == '{"health":"true"}', 10, "it is well again")


@check("disk-full-of-all-members", timeout=120)
def all_full(ctx):
    """Writes are refused before the disks are full; reads, watches, deletes and expiry go on; writes come back by themselves."""
    from watching import Waiter

    members = disk_cluster(ctx)
    ctx.put(members[0], "/announce/web", "10.0.0.7:80", ttl=600)
    ctx.put(members[0], "/announce/short", "v", ttl=4)
    ctx.put(members[0], "/announce/old", "v")
    for member in members:
        fill(ctx, member, RESERVE_MIB / 2)
    for member in members:
        eventually(lambda member=member: "NOSPACE" in health(ctx, member), 5, f"{member.name} says that space is short")
        eventually(lambda member=member: not taken(ctx, member, "/refused"), 5, f"{member.name} refuses writes")
        expect_refused(ctx, member, "/refused")
        expect_refused(ctx, member, "/announce/web")
        expect('"health":"true"' in health(ctx, member), "a member that answers reads is healthy")
        expect_equal(ctx.get(member, "/announce/web").node["value"], "10.0.0.7:80", f"a key read on {member.name}")
        # It is the leader that refuses; the others hear of it with its next heartbeat.
        eventually(lambda member=member: "WRITESREFUSED" in health(ctx, member), 1, f"{member.name} says that writes are refused")
        expect_equal(metric(ctx, member, 'quorate_alarm{type="WRITESREFUSED"}'), 1, "the metric of the refusal")
    waiter = Waiter(members[1], "/announce/old")
    answer = ctx.http("DELETE", members[2].key("/announce/old"))
    expect_equal(answer.status, 200, "a delete with all disks nearly full")
    expect_equal(waiter.event()["action"], "delete", "what the watcher was told")
    eventually(lambda: ctx.get(members[0], "/announce/short").status == 404, 8, "expiry goes on")
    for member in members:
        expect(free_mib(member) > 0.5, f"{member.name} used up its reserve")
    emptied = time.monotonic()
    for member in members[:2]:
        empty(ctx, member)
    # Two of three have room: a quorum.
    eventually(lambda: taken(ctx, members[0], "/back/first"), 10, "writes come back")
    ctx.note(f"writes came back {time.monotonic() - emptied:.1f} s after there was space")
    empty(ctx, members[2])
    for member in members:
        eventually(lambda member=member: health(ctx, member) == '{"health":"true"}', 10, f"{member.name} is well again")
        ctx.put(member, f"/back/{member.name}", "v")


@check("quota-of-the-keyspace", timeout=60)
def quota(ctx):
    """The keyspace reaches its quota: refused, but for deletes and refreshes, until keys are deleted."""
    members = ctx.static_cluster(extra=("--quota-backend-bytes", "200000"))
    ctx.put(members[0], "/beat", "v", ttl=60)
    for number in range(30):
        answer = ctx.http("PUT", members[number % 3].key(f"/quota/{number}"), {"value": "x" * 10_000})
        if answer.status == 507:
            break
        time.sleep(0.05)
    expect_equal((answer.status, answer.json["errorCode"]), (507, 300), "a write beyond the quota")
    expect("database space exceeded" in answer.json["cause"], f"as etcd says it: {answer.text}")
    expect(15 <= number <= 22, f"refused after {number} writes of 10,000 bytes")
    eventually(lambda: "QUOTA" in health(ctx, members[0]), 5, "the alarm")
    answer = ctx.http("PUT", members[1].key("/beat"), {"ttl": "60", "refresh": "true", "prevExist": "true"})
    expect_equal(answer.status, 200, "a refresh over the quota")
    for gone in range(5):
        expect_equal(ctx.http("DELETE", members[gone % 3].key(f"/quota/{gone}")).status, 200, "a delete over the quota")
    eventually(lambda: all(taken(ctx, member, "/quota/after") for member in members), 5, "writes come back")
    eventually(lambda: health(ctx, members[0]) == '{"health":"true"}', 5, "the alarm is over")


class FaultyDisk:
    """Lets system calls of one member on its files fail or wait."""

    def __init__(self, ctx, member):
        library = ctx.dir / "faulty_disk.so"
        if not library.exists():
            source = os.path.join(os.path.dirname(__file__), "faulty_disk.c")
            built = ctx.run("gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", timeout=60)
            expect_equal(built.returncode, 0, f"building the library that faults: {built.stderr}")
        self.control = ctx.dir / f"{member.name}.faults"
        member.env = member.env | {"LD_PRELOAD": str(library), "FAULTY_DISK": str(self.control)}

    def fail(self, call, error, part="/member/log/"):
        self.set(f"{call} {error} 0 {part}")

    def delay(self, call, milliseconds, part="/member/log/"):
        self.set(f"{call} 0 {milliseconds} {part}")

    def set(self, line):
        beside = self.control.with_suffix(".new")
        beside.write_text(line + "\n")
        beside.rename(self.control)

    def heal(self):
        self.control.unlink(missing_ok=True)


def faulty_cluster(ctx):
    members = ctx.static_cluster(start=False)
    disks = [FaultyDisk(ctx, member) for member in members]
    for member in members:
        member.start()
    ctx.wait_healthy(members)
    return members, dict(zip((member.name for member in members), disks))


def expect_stops_alone(ctx, members, victim, text):
    """It ends by itself and says why in one line; the others go on; nothing acknowledged is lost."""
    rest = [member for member in members if member is not victim]
    acknowledged = []
    deadline = time.monotonic() + 15
    while victim.alive and time.monotonic() < deadline:
        path = f"/fault/{time.monotonic_ns()}"
        if taken(ctx, rest[0], path):
            acknowledged.append(path)
    expect(victim.wait_for_exit(5) != 0, f"{victim.name} ended as if all were well")
    lines = [line for line in victim.output().splitlines() if "this member must stop" in line]
    expect(len(lines) == 1 and text in lines[0], f"expected one line with {text!r}: {lines}")
    ctx.leader(rest, timeout=15)
    eventually(lambda: taken(ctx, rest[0], "/fault/after"), 10, "the others go on")
    return [*acknowledged, "/fault/after"]


def expect_back(ctx, members, victim, acknowledged):
    victim.start()
    ctx.wait_healthy(members)
    for path in acknowledged:
        expect_equal(ctx.get(victim, path).status, 200, f"{path} on {victim.name}")
    ctx.put(victim, "/fault/back", "v")


@check("disk-write-and-flush-errors", timeout=180)
def write_errors(ctx):
    """EIO from a write, then from an fsync, of a follower and of the leader: that member stops, with a line, and starts again."""
    members, disks = faulty_cluster(ctx)
    for call, of_leader in (("sync", True), ("write", False)):
        leader = ctx.leader(members)
        victim = leader if of_leader else next(member for member in members if member is not leader)
        disks[victim.name].fail(call, errno.EIO)
        began = time.monotonic()
        acknowledged = expect_stops_alone(ctx, members, victim, "Input/output error")
        ctx.note(f"EIO from {call} of the {'leader' if of_leader else 'follower'}: over after {time.monotonic() - began:.1f} s")
        disks[victim.name].heal()
        expect_back(ctx, members, victim, acknowledged)


@check("disk-read-errors", timeout=120)
def read_errors(ctx):
    """EIO from reading the log or every checkpoint at a start: refused with a line that names the file, nothing is harmed."""
    members, disks = faulty_cluster(ctx)
    victim = members[0]
    ctx.put(members[1], "/read/key", "v")
    for part in ("/member/log/", "/member/state/"):
        victim.kill()
        disks[victim.name].fail("read", errno.EIO, part)
        victim.start()
        expect(victim.wait_for_exit(20) != 0, "it ended as if all were well")
        line = victim.output().strip().splitlines()[-1]
        expect(line.startswith("quorate: ") and part in line, f"the line does not name the file: {line}")
        disks[victim.name].heal()
        victim.start()
        ctx.wait_healthy(members)
        expect_equal(ctx.get(victim, "/read/key").status, 200, "what was there")


@check("disk-slow", timeout=120)
def slow_disk(ctx):
    """Each fsync of a follower's, then of the leader's disk takes longer than an election timeout: nobody is deposed for it."""
    members, disks = faulty_cluster(ctx)
    leader = ctx.leader(members)
    follower = next(member for member in members if member is not leader)
    term = metric(ctx, leader, "quorate_raft_term")
    for slow, limit in ((follower, 0.5), (leader, 4.5)):
        disks[slow.name].delay("sync", 1500)
        slowest, count, end = 0, 0, time.monotonic() + 6
        while time.monotonic() < end:
            began = time.monotonic()
            ctx.put(leader, f"/slow/{slow.name}/{count}", "v")
            slowest, count = max(slowest, time.monotonic() - began), count + 1
        expect(slowest < limit, f"a write took {slowest:.1f} s with the slow disk on {slow.name}")
        expect("the disk is slow" in slow.output(), f"no line in the log of {slow.name} says so")
        ctx.note(f"slowest write {slowest:.2f} s with a slow {'leader' if slow is leader else 'follower'}")
        disks[slow.name].heal()
    expect_equal(metric(ctx, leader, "quorate_raft_term"), term, "the term: heartbeats waited for a disk")
    expect(leader.leads(), "the leader was deposed")


@check("disk-read-only", timeout=120)
def read_only(ctx):
    """The file system turns read-only, as it does after an error: the member stops and says so, a start is refused, all is there after."""
    members = disk_cluster(ctx)
    victim = members[0]
    # Its files are open for writing, so that the kernel refuses a polite remount: as for an error, by force.
    disks = FaultyDisk(ctx, victim)
    victim.stop()
    victim.start()
    ctx.wait_healthy(members)
    disks.fail("write", errno.EROFS)
    acknowledged = expect_stops_alone(ctx, members, victim, "remount the file system for writing")
    disks.heal()
    subprocess.run(["mount", "-o", "remount,ro", victim.data], check=True)
    victim.start()
    expect(victim.wait_for_exit(10) != 0, "it started on a read-only file system")
    expect("remount the file system for writing" in victim.output(), f"the refusal: {victim.output()}")
    subprocess.run(["mount", "-o", "remount,rw", victim.data], check=True)
    expect_back(ctx, members, victim, acknowledged)
