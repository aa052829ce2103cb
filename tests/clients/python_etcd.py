"""python-etcd in the roles of `roles.py`; the lock is the library's own."""

import time

import etcd
import roles
from roles import Node, Refused, Unknown, say

# The library waits for a minute by default, which says nothing about a cluster.
TIMEOUT = 2


def node(result):
    return Node(result.key, result.value, result.createdIndex, result.modifiedIndex, result.ttl)


class Store:
    def __init__(self, endpoints):
        hosts = (endpoint.removeprefix("http://").split(":") for endpoint in endpoints)
        self.hosts = tuple((host, int(port)) for host, port in hosts)
        self.connect()

    def connect(self):
        while True:
            try:
                # It knows every member: it asks for them when it connects, and when one fails.
                self.client = etcd.Client(host=self.hosts, allow_reconnect=True, read_timeout=TIMEOUT)
                return
            except etcd.EtcdException:
                time.sleep(0.1)

    def call(self, function, *arguments, **options):
        try:
            return function(*arguments, **options)
        except (etcd.EtcdConnectionFailed, etcd.EtcdLeaderElectionInProgress, etcd.EtcdWatchTimedOut) as lost:
            # One that has tried everybody tries nobody any more.
            self.connect()
            raise Unknown(lost) from lost
        except etcd.EtcdException as no:
            code = (no.payload or {}).get("errorCode")
            if code is None or code >= 300:
                raise Unknown(no) from no
            raise Refused(code, no) from no

    def get(self, key):
        return node(self.call(self.client.read, key, quorum=True))

    def listing(self, key):
        return [leaf.key for leaf in self.call(self.client.read, key, recursive=True, sorted=True, quorum=True).leaves]

    def set(self, key, value, ttl=None):
        return node(self.call(self.client.write, key, value, ttl=ttl))

    def create(self, key, value, ttl=None):
        return node(self.call(self.client.write, key, value, ttl=ttl, prevExist=False))

    def swap(self, key, value, prev, ttl=None):
        return node(self.call(self.client.write, key, value, ttl=ttl, prevValue=prev))

    def refresh(self, key, _value, ttl):
        return node(self.call(self.client.refresh, key, ttl))

    def append(self, key, value):
        return node(self.call(self.client.write, key, value, append=True))

    def remove(self, key, prev):
        return self.call(self.client.delete, key, prevValue=prev)

    def wait(self, key, index, seconds):
        return self.call(self.client.watch, key, index=index, timeout=seconds)

    def changes(self, key, index):
        while True:
            try:
                for event in self.client.eternal_watch(key, index=index, recursive=True):
                    yield event.action, event.key, event.modifiedIndex, event.value
                    index = event.modifiedIndex + 1
            except etcd.EtcdException:
                self.connect()


def lock(store, me, ending, scratch):
    """The library's recipe: a queue of keys, each waits for the one before it."""
    guard = roles.Guard(scratch, "lock")
    while not ending:
        mine = etcd.Lock(store.client, "app")
        try:
            if not mine.acquire(blocking=True, lock_ttl=roles.LOCK_TTL, timeout=2):
                say(violation="acquire(blocking=True) gave up")
            # Its time runs while it waits; what is left may not be enough.
            held = store.get(mine.lock_key)
            if held.ttl >= 2:
                guard.enter(me)
                say(acquired=held.created)
                time.sleep(0.1)
                guard.leave()
            mine.release()
        except (etcd.EtcdException, Refused, Unknown):
            store.connect()
            ending.sleep(0.05)
        ending.sleep(0.02)


roles.main(Store, {"lock": lock})
