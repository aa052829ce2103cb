"""Real members as real processes: starting, asking, killing them, and keeping the evidence for when something is wrong."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from dataclasses import dataclass, field

from checking import CheckFailed, eventually, expect, expect_equal

START_TIMEOUT = 30.0
# Longer than a leader election with default settings, shorter than anybody's patience.
REQUEST_TIMEOUT = 10.0

# A proxy in the environment has no business between this script and 127.0.0.1.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


# A line of a log that says what goes on, not why it ends. (A real etcd's would be JSON; it is not asked to refuse anything.)
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z  ?(INFO|WARN) ")

_taken_ports = set()
_port_range = (20000, 32000)


def use_ports(first, end):
    """Where `free_port` looks: [first, end)."""
    global _port_range
    _port_range = (first, end)


def free_port():
    """A port below the kernel's own range for outgoing connections, so that none of those takes it between a kill and a restart."""
    first, end = _port_range
    count = end - first
    start = (os.getpid() * 97) % count
    for number in range(count):
        port = first + (start + number) % count
        if port in _taken_ports:
            continue
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        _taken_ports.add(port)
        return port
    raise CheckFailed("no free port")


@dataclass
class Answer:
    status: int
    headers: object
    text: str

    @property
    def json(self):
        try:
            return json.loads(self.text)
        except ValueError:
            raise CheckFailed(f"not JSON (status {self.status}): {self.text[:500]!r}") from None

    @property
    def node(self):
        return self.json["node"]

    @property
    def index(self):
        return int(self.headers["X-Etcd-Index"])


def request(method, url, form=None, timeout=REQUEST_TIMEOUT):
    """One HTTP request. Any status is an answer; no answer is an OSError."""
    data = urllib.parse.urlencode(form).encode() if form is not None else None
    sent = urllib.request.Request(url, data=data, method=method)
    try:
        with _opener.open(sent, timeout=timeout) as answer:
            return Answer(answer.status, answer.headers, answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read().decode(errors="replace"))
    except http.client.HTTPException as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


@dataclass
class Member:
    """One member: how it is started, and the process while there is one."""

    name: str
    argv: list
    log: pathlib.Path
    env: dict = field(default_factory=dict)
    client_port: int = 0
    peer_port: int = 0
    data: pathlib.Path = None
    host: str = "127.0.0.1"
    process: subprocess.Popen = None

    @property
    def url(self):
        return f"http://{self.host}:{self.client_port}"

    @property
    def address(self):
        return f"{self.host}:{self.client_port}"

    def key(self, path, **query):
        text = "&".join(f"{name}={value}" for name, value in query.items())
        return f"{self.url}/v2/keys{path}" + (f"?{text}" if text else "")

    @property
    def alive(self):
        return self.process is not None and self.process.poll() is None

    def start(self):
        expect(not self.alive, f"{self.name} is already running")
        # Settings of whoever runs this are not settings of the members.
        env = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        with open(self.log, "ab") as log:
            log.write(f"$ {' '.join(map(str, self.argv))}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                list(map(str, self.argv)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env | self.env,
                cwd=self.log.parent,
                start_new_session=True,
            )
        return self

    def kill(self):
        """kill -9: no chance to say goodbye or to write anything."""
        if self.alive:
            self.process.kill()
        self.process.wait()

    def pause(self):
        """As a machine that stands still: its sockets stay open, and its clock goes on."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self, timeout=15.0):
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise CheckFailed(f"{self.name} did not stop within {timeout:g} s of SIGTERM") from None

    def wait_for_exit(self, timeout):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"{self.name} still runs after {timeout:g} s") from None

    def output(self):
        """Everything it printed since it was last started."""
        text = self.log.read_text(errors="replace")
        return text[text.rindex("$ ") :].partition("\n")[2] if "$ " in text else text

    def healthy(self):
        with contextlib.suppress(OSError):
            answer = request("GET", f"{self.url}/health", timeout=2)
            return answer.status == 200 and "true" in answer.text
        return False

    def leads(self):
        with contextlib.suppress(OSError, ValueError):
            return request("GET", f"{self.url}/v2/stats/self", timeout=2).json.get("state") == "StateLeader"
        return False


class Context:
    """What one check has at hand: a directory, programs, and members that do not outlive it."""

    def __init__(self, programs, target, scratch=None):
        self.programs = programs
        self.target = target
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="e2e-", dir=scratch))
        self.members = []
        self.history = deque(maxlen=40)
        self.notes = []
        self.cleanups = []

    def note(self, text):
        """What was measured, for the line that says that the check passed."""
        self.notes.append(text)

    # Where the real etcd is known to behave differently, and the check is run against it to see whether the check is right.
    @property
    def is_etcd(self):
        return self.target == "etcd"

    @property
    def linearizable(self):
        """The query of a read that may miss no acknowledged write: Quorate's default, an option of etcd's."""
        return {"quorum": "true"} if self.is_etcd else {}

    @property
    def expiry_lateness(self):
        """etcd looks for expired keys every half second."""
        return 1.0 if self.is_etcd else 0.1

    def close(self):
        for member in self.members:
            if member.alive:
                member.process.kill()
        for member in self.members:
            if member.process is not None:
                member.process.wait()
        for cleanup in reversed(self.cleanups):
            cleanup()
        shutil.rmtree(self.dir, ignore_errors=True)

    def evidence(self):
        lines = ["last commands:"]
        lines += [f"  {entry}" for entry in self.history]
        for member in self.members:
            state = "running" if member.alive else f"ended: {member.process and member.process.returncode}"
            lines.append(f"log of {member.name} ({state}), its end:")
            if member.log.exists():
                lines += [f"  {line}" for line in member.log.read_text(errors="replace").splitlines()[-20:]]
        return "\n".join(lines)

    # Asking.

    def http(self, method, url, form=None, timeout=REQUEST_TIMEOUT):
        sent = f"{method} {url}" + (f" {urllib.parse.urlencode(form)[:200]}" if form is not None else "")
        try:
            answer = request(method, url, form, timeout)
        except OSError as error:
            self.history.append(f"{sent} -> {error}")
            raise CheckFailed(f"{sent}: {error}") from error
        self.history.append(f"{sent} -> {answer.status} {answer.text.strip()[:300]}")
        return answer

    def put(self, member, path, value, **form):
        answer = self.http("PUT", member.key(path), {"value": value} | form)
        expect(answer.status in (200, 201), f"PUT {path} on {member.name}: {answer.status} {answer.text.strip()}")
        return answer

    def get(self, member, path, **query):
        return self.http("GET", member.key(path, **(self.linearizable | query)))

    def run(self, *argv, env=None, timeout=30.0, stdin=""):
        """Runs a program to its end."""
        argv = list(map(str, argv))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        try:
            done = subprocess.run(argv, env=clean | (env or {}), input=stdin, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"{' '.join(argv)}: still running after {timeout:g} s") from None
        self.history.append(f"$ {' '.join(argv)} -> {done.returncode} {done.stdout.strip()[:300]!r} {done.stderr.strip()[:300]!r}")
        return done

    # Starting.

    def member(self, name, *arguments, program=None, env=None, host="127.0.0.1", ports=None, data=True, prefix=()):
        """A member that is not started yet. `{client}` and `{peer}` in arguments and environment become its addresses."""
        client, peer = ports or (free_port(), free_port())
        # Members of two clusters may have one name, but not one directory.
        label = name
        while any(other.log.stem == label for other in self.members):
            label += "x"
        directory = self.dir / f"{label}.data"
        places = {"client": f"{host}:{client}", "peer": f"{host}:{peer}", "data": str(directory)}
        argv = [*prefix, program or self.programs["quorate"]]
        argv += [str(argument).format(**places) for argument in arguments]
        if data:
            argv += ["--data-dir", directory]
        env = {key: value.format(**places) for key, value in (env or {}).items()}
        made = Member(name, argv, self.dir / f"{label}.log", env, client, peer, directory, host)
        self.members.append(made)
        return made

    def old_style(self, name, discovery=None, **options):
        """As in the days of 0.4: -addr, -peer-addr and perhaps -discovery."""
        arguments = ["-name", name, "-addr", "{client}", "-peer-addr", "{peer}"]
        if discovery:
            arguments += ["-discovery", discovery]
        return self.member(name, *arguments, **options)

    def etcd(self, name, *arguments, **options):
        """A real etcd with the flags of 2.x and no initial cluster unless the arguments have one."""
        return self.member(
            name, "--enable-v2=true", "--name", name,
            "--listen-client-urls", "http://{client}", "--advertise-client-urls", "http://{client}",
            "--listen-peer-urls", "http://{peer}", "--initial-advertise-peer-urls", "http://{peer}",
            "--logger", "zap", "--log-level", "error", *arguments,
            program=self.programs["etcd"], **options,
        )  # fmt: skip

    def static_cluster(self, size=3, token="e2e", start=True, extra=()):
        """Members of the target with the flags of 2.x and a static initial cluster."""
        ports = [(free_port(), free_port()) for _ in range(size)]
        initial = ",".join(f"m{number}=http://127.0.0.1:{peer}" for number, (_, peer) in enumerate(ports, 1))
        members = []
        for number, pair in enumerate(ports, 1):
            name = f"m{number}"
            cluster = ["--initial-cluster", initial, "--initial-cluster-state", "new", "--initial-cluster-token", token, *extra]
            if self.is_etcd:
                members.append(self.etcd(name, *cluster, ports=pair))
            else:
                members.append(
                    self.member(
                        name, "--name", name,
                        "--listen-client-urls", "http://{client}", "--advertise-client-urls", "http://{client}",
                        "--listen-peer-urls", "http://{peer}", "--initial-advertise-peer-urls", "http://{peer}",
                        *cluster, ports=pair,
                    )
                )  # fmt: skip
        if start:
            for member in members:
                member.start()
            self.wait_healthy(members)
        return members

    def wait_healthy(self, members, timeout=START_TIMEOUT):
        def all_healthy():
            for member in members:
                expect(member.alive, f"{member.name} ended while starting: {member.process.returncode}")
            return all(member.healthy() for member in members)

        eventually(all_healthy, timeout, f"{', '.join(member.name for member in members)} healthy")

    def leader(self, members, timeout=10.0):
        return eventually(
            lambda: next((member for member in members if member.alive and member.leads()), None), timeout, "a leader"
        )

    def discovery_service(self):
        """One of our members alone, that others find each other by."""
        member = self.old_style("discovery").start()
        self.wait_healthy([member])
        return member

    def new_token(self, service, size=3):
        """As everybody did it: curl, and whatever line is a URL."""
        done = self.run("curl", "--silent", "--show-error", f"{service.url}/new?size={size}")
        lines = [line for line in done.stdout.splitlines() if line.startswith("http")]
        expect(done.returncode == 0 and len(lines) == 1, f"/new?size={size} gave {done.stdout!r} {done.stderr!r}")
        return lines[0]

    def expect_forms(self, members):
        """They are one cluster: everybody lists everybody, and what one was told the others say."""
        self.wait_healthy(members)
        names = sorted(member.name for member in members)
        for member in members:
            def lists_all(member=member):
                listed = self.http("GET", f"{member.url}/v2/members").json["members"]
                return sorted(entry["name"] for entry in listed) == names

            eventually(lists_all, 10, f"{member.name} lists {names}")
        for number, writer in enumerate(members):
            self.put(writer, f"/formed/{number}", writer.name)
            for reader in members:
                answer = self.get(reader, f"/formed/{number}")
                expect(answer.status == 200, f"{reader.name} does not have what {writer.name} acknowledged: {answer.text}")
                expect_equal(answer.node["value"], writer.name, f"/formed/{number} on {reader.name}")

    def expect_refusal(self, member, pattern, timeout=20.0, one_line=True):
        """It ends by itself, with code 1 or 2, and says why in its last line, without a trace of a crash.

        `one_line`: that is all it says, but for log lines that say what it does. Else it may say so earlier: what was under way
        when it stopped is logged until the end.
        """
        code = member.wait_for_exit(timeout)
        output = member.output()
        lines = [line for line in output.splitlines() if line.strip()]
        expect(code in (1, 2), f"{member.name}: exit code {code}, not 1 or 2; it printed {output!r}")
        expect("panicked" not in output and "backtrace" not in output, f"{member.name} panicked: {output!r}")
        expect(lines, f"{member.name} ended with {code} and said nothing")
        where = lines[-1:] if one_line else lines
        expect(any(re.search(pattern, line, re.IGNORECASE) for line in where), f"{member.name}: {where!r} does not match {pattern!r}")
        errors = [line for line in lines if not LOG_LINE.match(line)]
        expect(not one_line or len(errors) == 1, f"{member.name}: more than one line of error: {output!r}")
