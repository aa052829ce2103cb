"""Watches in the background: what they were told, and when."""

import http.client
import json
import queue
import threading
import time

from checking import CheckFailed, expect


class Waiter(threading.Thread):
    """One long poll in the background: its answer, and when it came."""

    def __init__(self, member, path, timeout=30, **query):
        super().__init__(daemon=True)
        self.member, self.answer, self.at, self.error = member, None, None, None
        self.connection = http.client.HTTPConnection(member.host, member.client_port, timeout=timeout)
        self.connection.request("GET", member.key(path, wait="true", **query).removeprefix(member.url))
        # Headers come when the watch is armed: from here on nothing can be missed.
        self.response = self.connection.getresponse()
        self.start()

    def run(self):
        try:
            self.answer = json.loads(self.response.read())
            self.at = time.monotonic()
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.error = error

    def event(self, timeout=30):
        self.join(timeout)
        expect(self.answer is not None, f"no event on {self.member.name} within {timeout:g} s ({self.error})")
        return self.answer


class Stream(threading.Thread):
    """A stream of events, each with the time it came, into a queue."""

    def __init__(self, member, path, **query):
        super().__init__(daemon=True)
        self.member, self.events = member, queue.Queue()
        self.connection = http.client.HTTPConnection(member.host, member.client_port, timeout=60)
        self.connection.request("GET", member.key(path, wait="true", stream="true", **query).removeprefix(member.url))
        self.response = self.connection.getresponse()
        self.start()

    def run(self):
        try:
            # Taken apart later: what it takes here would count as lateness of the next.
            while line := self.response.readline():
                self.events.put((line, time.monotonic()))
        except (OSError, http.client.HTTPException):
            pass

    def take(self, count, timeout=20):
        taken = []
        deadline = time.monotonic() + timeout
        while len(taken) < count:
            try:
                line, at = self.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise CheckFailed(f"{len(taken)} events of {count} within {timeout:g} s") from None
            taken.append((json.loads(line), at))
        return taken
