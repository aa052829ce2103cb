"""What people and programs get wrong: each is refused in one line that names it, and nothing is damaged."""

import contextlib
import http.client
import os
import pathlib
import re
import shutil
import socket
import tempfile

from checking import BOTH, check, eventually, expect, expect_equal
from cluster import free_port


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
    # Root may read anything; somebody else may not. Who must get there first, wherever this repository is.
    place = pathlib.Path(tempfile.mkdtemp(prefix="e2e-"))
    ctx.cleanups.append(lambda: shutil.rmtree(place, ignore_errors=True))
    place.chmod(0o755)
    program = shutil.copy(ctx.programs["quorate"], place / "quorate")
    private = place / "private.data"
    private.mkdir(mode=0o700)
    unreadable = ctx.member(
        "unreadable", *addresses, "--data-dir", private, data=False, program=program,
        prefix=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    )  # fmt: skip
    ctx.expect_refusal(unreadable.start(), "private.data.*denied.*belong")
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
    (member,) = ctx.static_cluster(size=1, extra=("--snapshot-count", "200"))
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
