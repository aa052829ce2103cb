"""How a cluster comes to be: by a discovery URL, by the environment, by flags of each generation; and how it refuses to."""

import random
import re
import subprocess
import time

from checking import BOTH, CheckFailed, check, eventually, expect, expect_equal


@check("bootstrap-discovery")
def discovery(ctx):
    service = ctx.discovery_service()
    token = ctx.new_token(service)
    expect(token.startswith(f"http://127.0.0.1:{service.client_port}/"), f"the URL is {token}")
    members = [ctx.old_style(f"m{number}", token).start() for number in (1, 2, 3)]
    ctx.expect_forms(members)


@check("bootstrap-discovery-at-real-etcd")
def discovery_at_real_etcd(ctx):
    service = ctx.etcd("discovery").start()
    ctx.wait_healthy([service])
    ctx.put(service, "/registry/6c007a14875d53d9bf0ef5a6fc0257c8/_config/size", "3")
    token = service.key("/registry/6c007a14875d53d9bf0ef5a6fc0257c8")
    members = [ctx.old_style(f"m{number}", token).start() for number in (1, 2, 3)]
    ctx.expect_forms(members)


@check("real-etcds-bootstrap-from-us")
def real_etcds_bootstrap_from_us(ctx):
    token = ctx.new_token(ctx.discovery_service())
    members = [ctx.etcd(f"m{number}", "--discovery", token).start() for number in (1, 2, 3)]
    ctx.wait_healthy(members)
    ctx.put(members[0], "/formed", "yes")
    expect_equal(ctx.http("GET", members[2].key("/formed", quorum="true")).node["value"], "yes", "/formed on m3")


@check("bootstrap-environment")
def environment(ctx):
    token = ctx.new_token(ctx.discovery_service())
    members = []
    for number in (1, 2, 3):
        env = {
            "ETCD_NAME": f"m{number}",
            "ETCD_DATA_DIR": "{data}",
            "ETCD_DISCOVERY": token,
            "ETCD_ADDR": "{client}",
            "ETCD_PEER_ADDR": "{peer}",
        }
        members.append(ctx.member(f"m{number}", env=env, data=False).start())
    ctx.expect_forms(members)
    for member in members:
        expect(member.data.is_dir(), f"{member.name} did not use ETCD_DATA_DIR")


@check("bootstrap-static", targets=BOTH)
def static(ctx):
    ctx.expect_forms(ctx.static_cluster())


@check("bootstrap-flag-forms", targets=BOTH)
def flag_forms(ctx):
    forms = (
        lambda flag, value: [f"-{flag}", value],
        lambda flag, value: [f"--{flag}={value}"],
        lambda flag, value: [f"-{flag}={value}"],
    )
    members = ctx.static_cluster(start=False)
    for member, form in zip(members, forms):
        program, rest, argv = member.argv[0], list(map(str, member.argv[1:])), []
        while rest:
            flag = rest.pop(0)
            if "=" in flag:
                argv.append(flag)
            else:
                argv += form(flag.lstrip("-"), rest.pop(0))
        member.argv = [program, *argv]
        member.start()
    ctx.expect_forms(members)


@check("bootstrap-killed-and-started-again")
def killed_and_started_again(ctx):
    service = ctx.discovery_service()
    token = ctx.new_token(service)
    first, second, third = (ctx.old_style(f"m{number}", token) for number in (1, 2, 3))
    for pause in (0.02, 0.1, 0.3):
        first.start()
        second.start()
        time.sleep(pause)
        first.kill()
        time.sleep(pause / 2)
        second.kill()
    # The service too: it keeps who has registered.
    service.kill()
    service.start()
    ctx.wait_healthy([service])
    # And at the worst moments: when the cluster is just being made.
    chance = random.Random(ctx.dir.name)
    for _ in range(6):
        for member in (first, second, third):
            member.start()
        time.sleep(chance.uniform(0.05, 0.4))
        for member in (first, second, third):
            member.kill()
    for member in (first, second, third):
        member.start()
    ctx.expect_forms([first, second, third])


@check("bootstrap-static-killed-and-started-again")
def static_killed_and_started_again(ctx):
    members = ctx.static_cluster(start=False)
    chance = random.Random(ctx.dir.name)
    for _ in range(6):
        for member in members:
            member.start()
        time.sleep(chance.uniform(0.02, 0.4))
        for member in members:
            member.kill()
    for member in members:
        member.start()
    ctx.expect_forms(members)


@check("bootstrap-full")
def full(ctx):
    token = ctx.new_token(ctx.discovery_service())
    members = [ctx.old_style(f"m{number}", token).start() for number in (1, 2, 3)]
    ctx.expect_forms(members)
    fourth = ctx.old_style("m4", token, env={"ETCD_DISCOVERY_FALLBACK": "exit"}).start()
    ctx.expect_refusal(fourth, "cluster is full", timeout=30)
    ctx.expect_forms(members)


@check("bootstrap-refusals")
def refusals(ctx):
    service = ctx.discovery_service()
    for size in ("0", "-1", "x"):
        answer = ctx.http("GET", f"{service.url}/new?size={size}")
        expect_equal(answer.status, 400, f"/new?size={size}")

    ctx.expect_refusal(ctx.old_style("no-url", "not a url").start(), "discovery|url", one_line=True)
    ctx.expect_refusal(ctx.old_style("no-token", f"{service.url}/{'0' * 32}").start(), "size|not found|token")

    # A registry elsewhere that somebody made by hand, and wrongly.
    registry = ctx.etcd("registry").start()
    ctx.wait_healthy([registry])
    for number, size in enumerate(("0", "-1", "many")):
        ctx.put(registry, f"/registry/{number}/_config/size", size)
        ctx.expect_refusal(ctx.old_style(f"size{number}", registry.key(f"/registry/{number}")).start(), "size")


@check("bootstrap-dead-discovery")
def dead_discovery(ctx):
    """A service that is down is waited for, not in silence; if it comes back the member goes on, else it ends and says why."""
    dead, late = ctx.member("never-started"), ctx.old_style("discovery")
    lost = ctx.old_style("lost", f"{dead.url}/{'a' * 32}").start()
    nowhere = ctx.old_style("nowhere", f"http://quorate.invalid/{'a' * 32}").start()
    service = late.start()
    ctx.wait_healthy([service])
    token = ctx.new_token(service, size=1)
    service.stop()
    patient = ctx.old_style("patient", token).start()
    for member, place in ((lost, str(dead.client_port)), (nowhere, "quorate.invalid"), (patient, str(service.client_port))):
        def said_so(member=member, place=place):
            return re.search(f"discovery: no answer.*{place}", member.output())

        eventually(said_so, 15, "the member says that the discovery service does not answer")
    service.start()
    ctx.expect_forms([patient])
    for member, place in ((lost, str(dead.client_port)), (nowhere, "quorate.invalid")):
        ctx.expect_refusal(member, f"discovery: no answer from .*{place}.*is the URL right", timeout=60, one_line=False)


@check("bootstrap-discovery-gone-afterwards")
def discovery_gone(ctx):
    """Once formed, a cluster needs its discovery service no more. With the flags of 2.x and their environment."""
    service = ctx.discovery_service()
    token = ctx.new_token(service)
    members = []
    for number in (1, 2, 3):
        env = {"ETCD_LISTEN_CLIENT_URLS": "http://{client}", "ETCD_ADVERTISE_CLIENT_URLS": "http://{client}"}
        members.append(
            ctx.member(
                f"m{number}", "--name", f"m{number}", "--discovery", token,
                "--listen-peer-urls", "http://{peer}", "--initial-advertise-peer-urls", "http://{peer}", env=env,
            ).start()
        )  # fmt: skip
    ctx.expect_forms(members)
    service.kill()
    for member in members:
        member.kill()
    for member in members:
        member.start()
    ctx.expect_forms(members)


@check("bootstrap-duplicate-name")
def duplicate_name(ctx):
    token = ctx.new_token(ctx.discovery_service(), size=2)
    first = ctx.old_style("same", token).start()
    time.sleep(0.5)
    second = ctx.member(
        "same-again", "-name", "same", "-addr", "{client}", "-peer-addr", "{peer}", "-discovery", token
    ).start()
    eventually(lambda: not (first.alive and second.alive), 20, "one of two members of the same name ends")
    loser = second if not second.alive else first
    ctx.expect_refusal(loser, "duplicate|already")


class Hosts:
    """Network namespaces on a bridge: machines of their own, each with an address."""

    bridge_address = "10.77.0.254"

    def __init__(self, ctx, count):
        tag = f"q{ctx.dir.name[-5:]}".lower().replace("_", "0")
        self.bridge, self.names = f"{tag}br", [f"{tag}h{number}" for number in range(1, count + 1)]
        self.links = [f"{tag}v{number}" for number in range(1, count + 1)]
        self.ctx = ctx
        ctx.cleanups.append(self.remove)
        self.ip("link", "add", self.bridge, "type", "bridge")
        self.ip("addr", "add", f"{self.bridge_address}/24", "dev", self.bridge)
        self.ip("link", "set", self.bridge, "up")
        for number, (name, link) in enumerate(zip(self.names, self.links), 1):
            self.ip("netns", "add", name)
            self.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            self.ip("link", "set", link, "master", self.bridge)
            self.ip("link", "set", link, "up")
            for command in (
                ("addr", "add", f"{self.address(number)}/24", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                ("link", "set", "lo", "up"),
            ):
                self.ip("-n", name, *command)

    @staticmethod
    def address(number):
        return f"10.77.0.{number}"

    def ip(self, *arguments):
        done = self.ctx.run("ip", *arguments)
        expect(done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()} (needs root and iproute2)")

    def unplug(self, number):
        self.ip("link", "set", self.links[number - 1], "down")

    def plug_in(self, number):
        self.ip("link", "set", self.links[number - 1], "up")

    def remove(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        # A host's end of the cable goes with its namespace, but not at once.
        for link in (*self.links, self.bridge):
            subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)


@check("hosts-in-namespaces", timeout=180)
def hosts(ctx):
    """Three machines with addresses of their own, as in the cloud-config; then the leader's cable is pulled."""
    machines = Hosts(ctx, 3)
    service = ctx.old_style("discovery", host=machines.bridge_address).start()
    ctx.wait_healthy([service])
    token = ctx.new_token(service)
    members = [
        ctx.old_style(
            f"m{number}", token, host=machines.address(number), ports=(4001, 7001),
            prefix=("ip", "netns", "exec", machines.names[number - 1]),
        ).start()
        for number in (1, 2, 3)
    ]  # fmt: skip
    ctx.expect_forms(members)

    leader = ctx.leader(members)
    rest = [member for member in members if member is not leader]
    number = members.index(leader) + 1
    ctx.put(leader, "/cut", "before")
    machines.unplug(number)
    ctx.leader(rest, timeout=15)
    ctx.put(rest[0], "/cut", "after")

    # On the wrong side of the cut a default read says nothing rather than what was.
    local = ["ip", "netns", "exec", machines.names[number - 1], "curl", "--silent", "--max-time", "4"]
    stale = ctx.run(*local, leader.key("/cut"))
    expect('"before"' not in stale.stdout, f"{leader.name}, cut off, answered a default read with what was: {stale.stdout}")
    own = ctx.run(*local, leader.key("/cut", quorum="false"))
    expect('"before"' in own.stdout, f"{leader.name}, cut off, does not answer quorum=false: {own.stdout!r}")

    machines.plug_in(number)

    def caught_up():
        try:
            return ctx.get(leader, "/cut").json.get("node", {}).get("value") == "after"
        except CheckFailed:
            return False

    eventually(caught_up, 20, f"{leader.name} catches up", interval=0.2)
