#!/usr/bin/env python3
"""Disk and memory under hours of overwriting: is what members keep bounded by what they hold?

    python3 benches/disk_use.py --quorate target/release/quorate --minutes 60

Starts three members, writes each of some thousand keys in turn at a steady pace, and looks at the data directories and the
processes once a second. Leaves a CSV, a plot and the figures in benches/results, and fails if a member ever used more disk
than 4 x the live data + 256 MiB.
"""

import argparse
import csv
import datetime
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

MIB = 1 << 20
FACTOR, CONSTANT = 4, 256 * MIB
ROW_SECONDS = 10
# Over all members in turn: each is a client of one.
CONNECTIONS = 4
COLOURS = ("#1b6ca8", "#c8553d", "#588b4a")


class Member:
    def __init__(self, number, client, peer, directory, argv):
        self.name, self.client, self.peer = f"m{number}", client, peer
        self.data = directory / f"{self.name}.data"
        with open(directory / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(argv + ["--data-dir", str(self.data)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def metric(self, name):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.client}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(name + " "):
                    return float(line.split()[1])
        return 0.0

    def disk(self):
        """Bytes of the log and of the checkpoints, as the file system counts them."""
        found = {"log": 0, "state": 0}
        for part in found:
            for directory, _, names in os.walk(self.data / "member" / part):
                for name in names:
                    try:
                        found[part] += os.stat(os.path.join(directory, name)).st_blocks * 512
                    except FileNotFoundError:
                        pass  # removed while we looked
        return found["log"], found["state"]

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))

    def processor_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Load(threading.Thread):
    """Overwrites its share of the keys, one after the other, at its share of the pace."""

    def __init__(self, number, port, options, stop):
        super().__init__(daemon=True)
        self.number, self.port, self.options, self.stop = number, port, options, stop
        self.done = self.failed = 0
        self.slowest = 0.0

    def run(self):
        period = CONNECTIONS / self.options.rate
        keys = range(self.number, self.options.keys, CONNECTIONS)
        value = ("%032x" % int.from_bytes(os.urandom(16), "big")) * (self.options.value_size // 32 + 1)
        connection, count, next_at = None, 0, time.monotonic()
        while not self.stop.is_set():
            next_at = max(next_at + period, time.monotonic() - 1)
            time.sleep(max(0, next_at - time.monotonic()))
            key, count = keys[count % len(keys)], count + 1
            body = ("value=" + f"{count:08d}" + value)[: self.options.value_size + 6].encode()
            head = f"PUT /v2/keys/overwritten/{key} HTTP/1.1\r\nHost: m\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
            begun = time.monotonic()
            try:
                connection = connection or socket.create_connection(("127.0.0.1", self.port), timeout=15)
                connection.sendall(head.encode() + body)
                status = read_status(connection)
            except OSError:
                status, connection = 0, None
            self.slowest = max(self.slowest, time.monotonic() - begun)
            if status in (200, 201):
                self.done += 1
            else:
                self.failed += 1


def read_status(connection):
    """Reads one answer and gives its status."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    missing = length - len(body)
    while missing > 0:
        missing -= len(received(connection))
    return int(head.split(b" ", 2)[1])


def received(connection):
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the member closed the connection")
    return data


def free_ports(count, first):
    found = []
    for port in range(first, first + 2000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    sys.exit(f"disk_use: no {count} free ports from {first} on")


def start(options, directory):
    ports = free_ports(2 * options.members, options.port)
    pairs = list(zip(ports[::2], ports[1::2]))
    initial = ",".join(f"m{number}=http://127.0.0.1:{peer}" for number, (_, peer) in enumerate(pairs, 1))
    members = []
    for number, (client, peer) in enumerate(pairs, 1):
        argv = [
            os.path.abspath(options.quorate), "--name", f"m{number}", "--initial-cluster", initial,
            "--listen-client-urls", f"http://127.0.0.1:{client}", "--advertise-client-urls", f"http://127.0.0.1:{client}",
            "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
            *options.argument,
        ]  # fmt: skip
        members.append(Member(number, client, peer, directory, argv))
    deadline = time.monotonic() + 30
    for member in members:
        while True:
            try:
                if member.metric("etcd_server_has_leader"):
                    break
            except OSError:
                pass
            if time.monotonic() > deadline or member.process.poll() is not None:
                sys.exit(f"disk_use: {member.name} does not come up; see {directory}/{member.name}.log")
            time.sleep(0.2)
    return members


def measure(options, members, loads):
    """One row for each member and ten seconds: what was highest in them."""
    rows, began = [], time.monotonic()
    end, worst = began + options.minutes * 60, {}
    next_row = began + ROW_SECONDS
    while time.monotonic() < end:
        time.sleep(1)
        for member in members:
            if member.process.poll() is not None:
                sys.exit(f"disk_use: {member.name} ended by itself")
            log, state = member.disk()
            before = worst.get(member.name, (0, 0, 0, 0))
            new = (log + state, log, state, member.memory())
            worst[member.name] = tuple(map(max, before, new))
        if time.monotonic() >= next_row:
            next_row += ROW_SECONDS
            live = int(members[0].metric("quorate_store_bytes"))
            writes = sum(load.done for load in loads)
            for member in members:
                total, log, state, memory = worst[member.name]
                rows.append((round(time.monotonic() - began), member.name, total, log, state, memory, live, writes))
            worst = {}
    return rows


def plot(rows, path, title):
    """Disk above, memory below, over time; by hand, since it is three lines and a bound."""
    width, height, left, top, gap = 900, 250, 70, 40, 60
    span = max(row[0] for row in rows) or 1
    bound = [(row[0], FACTOR * row[6] + CONSTANT) for row in rows]
    panels = (("disk, MiB", 2, bound), ("resident memory, MiB", 5, []))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {top + 2 * (height + gap)}" font-family="sans-serif" font-size="12">']
    out.append('<rect width="100%" height="100%" fill="white"/>')
    out.append(f'<text x="{left}" y="20" font-size="14">{title}</text>')
    for number, (label, column, limit) in enumerate(panels):
        base = top + number * (height + gap) + height
        highest = 1.1 * max([row[column] for row in rows] + [value for _, value in limit])
        place = lambda seconds, value: f"{left + width * seconds / span:.1f},{base - height * value / highest:.1f}"
        out.append(f'<text x="{left}" y="{base - height - 6}">{label}</text>')
        for step in range(6):
            value = highest * step / 5
            y = base - height * step / 5
            out.append(f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" stroke="#ddd"/>')
            out.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{value / MIB:.0f}</text>')
            x = left + width * step / 5
            out.append(f'<text x="{x}" y="{base + 16}" text-anchor="middle">{span * step / 5 / 60:.0f} min</text>')
        for colour, name in zip(COLOURS, sorted({row[1] for row in rows})):
            points = " ".join(place(row[0], row[column]) for row in rows if row[1] == name)
            out.append(f'<polyline fill="none" stroke="{colour}" points="{points}"/>')
        if limit:
            points = " ".join(place(*point) for point in limit)
            out.append(f'<polyline fill="none" stroke="black" stroke-dasharray="6 4" points="{points}"/>')
            out.append(f'<text x="{left + width - 4}" y="{base - height * limit[-1][1] / highest - 5}" text-anchor="end">4 x live data + 256 MiB</text>')
    out.append("</svg>")
    path.write_text("\n".join(out) + "\n")


def report(options, rows, members, loads, seconds):
    """The figures in words. Gives them and whether the bound held."""
    exceeded = [row for row in rows if row[2] > FACTOR * row[6] + CONSTANT]
    highest = max(row[2] for row in rows)
    late = [row for row in rows if row[0] > rows[-1][0] / 2]
    early = [row for row in rows if row[0] <= rows[-1][0] / 2]
    processor = sum(member.processor_seconds() for member in members) / len(members) / seconds
    lines = [
        f"# Disk use under overwriting: {options.minutes:g} minutes, {options.members} members",
        "",
        f"`benches/disk_use.py --minutes {options.minutes:g} --rate {options.rate} --keys {options.keys} --value-size {options.value_size}`",
        "",
        f"- {sum(load.done for load in loads):,} writes of {options.value_size} bytes over {options.keys:,} keys,"
        f" {sum(load.done for load in loads) / seconds:.0f}/s; {sum(load.failed for load in loads)} failed, the slowest took {max(load.slowest for load in loads):.2f} s",
        f"- live data {rows[-1][6] / MIB:.1f} MiB; bound {(FACTOR * rows[-1][6] + CONSTANT) / MIB:.0f} MiB",
        f"- disk of one member: at most {highest / MIB:.0f} MiB (log {max(row[3] for row in rows) / MIB:.0f}, checkpoints {max(row[4] for row in rows) / MIB:.0f}),"
        f" median {statistics.median(row[2] for row in rows) / MIB:.0f} MiB; at most {max(row[2] for row in early) / MIB:.0f} in the first half, {max(row[2] for row in late) / MIB:.0f} in the second",
        f"- resident memory of one member: at most {max(row[5] for row in early) / MIB:.0f} MiB in the first half, {max(row[5] for row in late) / MIB:.0f} in the second",
        f"- processor: {100 * processor:.0f} % of one core for each member",
        f"- the bound {'held throughout' if not exceeded else f'was exceeded in {len(exceeded)} of {len(rows)} rows'}; looked at once a second, each row of the CSV is the highest of {ROW_SECONDS} s",
    ]
    return "\n".join(lines) + "\n", not exceeded


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quorate", default="target/release/quorate")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=int, default=400, help="writes a second")
    parser.add_argument("--keys", type=int, default=2000)
    parser.add_argument("--value-size", type=int, default=4096)
    parser.add_argument("--members", type=int, default=3, choices=(1, 3))
    parser.add_argument("--port", type=int, default=23000, help="where to look for free ports")
    parser.add_argument("--data", help="where the data directories go: a real disk")
    parser.add_argument("--out", default=str(pathlib.Path(__file__).parent / "results"))
    parser.add_argument("--argument", action="append", default=[], help="for the members, as in --argument=--snapshot-count=500")
    return parser.parse_args()


def main():
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = pathlib.Path(tempfile.mkdtemp(prefix="disk-use-", dir=options.data or "."))
    members, loads, stop = [], [], threading.Event()
    try:
        members = start(options, directory)
        loads = [Load(number, members[number % len(members)].client, options, stop) for number in range(CONNECTIONS)]
        for load in loads:
            load.start()
        began = time.monotonic()
        rows = measure(options, members, loads)
        text, held = report(options, rows, members, loads, time.monotonic() - began)
    finally:
        stop.set()
        for member in members:
            member.process.terminate()
        for member in members:
            member.process.wait()
        shutil.rmtree(directory, ignore_errors=True)
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    name = f"{datetime.date.today()}-disk-use"
    with open(out / f"{name}.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("seconds", "member", "disk_bytes", "log_bytes", "checkpoint_bytes", "resident_bytes", "live_bytes", "writes"))
        table.writerows(rows)
    plot(rows, out / f"{name}.svg", f"{options.rate} PUT/s of {options.value_size} bytes over {options.keys} keys, {options.members} members")
    (out / f"{name}.md").write_text(text)
    print(text, end="")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
