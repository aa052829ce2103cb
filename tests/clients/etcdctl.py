"""Debian's etcdctl in the roles of `roles.py`: a script, and one process for each request."""

import json
import os
import re
import subprocess
import threading

import roles
from roles import Node, Refused, Unknown

PROGRAM = os.environ.get("ETCDCTL_PROGRAM", "etcdctl")


def node(answer):
    found = json.loads(answer)["node"]
    return Node(found["key"], found.get("value"), found["createdIndex"], found["modifiedIndex"], found.get("ttl"))


def leaves(found):
    if found.get("dir"):
        return [leaf for child in found.get("nodes", []) for leaf in leaves(child)]
    return [found["key"]]


def option(name, value):
    return [] if value is None else [f"--{name}", str(value)]


class Store:
    def __init__(self, endpoints):
        self.environment = os.environ | {"ETCDCTL_API": "2", "ETCDCTL_ENDPOINTS": ",".join(endpoints)}

    def command(self, *arguments):
        return [PROGRAM, "--timeout", "1s", "--total-timeout", "3s", "--output", "json", *map(str, arguments)]

    def run(self, *arguments):
        done = subprocess.run(
            self.command(*arguments), env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return done.stdout
        no = re.match(r"Error:  (\d+): (.*)", done.stderr)
        if no is None or int(no[1]) >= 300:
            raise Unknown(done.stderr)
        raise Refused(int(no[1]), no[2])

    def get(self, key):
        return node(self.run("get", "--quorum", key))

    def listing(self, key):
        return leaves(json.loads(self.run("ls", "--recursive", "--sort", "--quorum", key))["node"])

    def set(self, key, value, ttl=None):
        return node(self.run("set", *option("ttl", ttl), key, value))

    def create(self, key, value, ttl=None):
        return node(self.run("mk", *option("ttl", ttl), key, value))

    def swap(self, key, value, prev, ttl=None):
        return node(self.run("set", *option("ttl", ttl), "--swap-with-value", prev, key, value))

    def refresh(self, key, value, ttl):
        # It has no refresh: the sidekick's way, a write of the same.
        return node(self.run("update", "--ttl", ttl, key, value))

    def append(self, key, value):
        return node(self.run("mk", "--in-order", key, value))

    def remove(self, key, prev):
        return self.run("rm", "--with-value", prev, key)

    def wait(self, key, index, seconds):
        watch = subprocess.Popen(
            self.command("watch", "--after-index", index - 1, key), env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            watch.wait(seconds)
        except subprocess.TimeoutExpired:
            watch.kill()
            watch.wait()

    def changes(self, key, index):
        while True:
            watch = subprocess.Popen(
                self.command("watch", "--forever", "--recursive", "--after-index", index - 1, key), env=self.environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            # Nobody waits for it when this ends.
            timer = threading.Timer(60, watch.kill)
            timer.daemon = True
            timer.start()
            for line in watch.stdout:
                # "[set] /key" and then the answer.
                if line.startswith("{"):
                    event = json.loads(line)
                    found = event["node"]
                    try:
                        yield event["action"], found["key"], found["modifiedIndex"], found.get("value")
                    except GeneratorExit:
                        watch.kill()
                        watch.wait()
                        raise
                    index = found["modifiedIndex"] + 1
            timer.cancel()
            watch.wait()


roles.main(Store)
