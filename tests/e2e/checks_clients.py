"""The clients that people have: etcdctl, and python-etcd."""

import re

from checking import BOTH, CheckFailed, check, expect, expect_equal

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
