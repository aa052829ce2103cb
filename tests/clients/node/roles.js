// node-etcd in the roles of ../roles.py, which says what they are. It has no lock and no election: they are made of what
// it has, as its users do.
'use strict';

const assert = require('assert');
const fs = require('fs');
const path = require('path');
const Etcd = require('node-etcd');

const KEEP_TTL = 3, LOCK_TTL = 4, ELECTION_TTL = 3, LEADS_FOR = 1500, TERM = 4000;
const NOT_FOUND = 100, COMPARE_FAILED = 101, EXISTS = 105;
const TIMEOUT = 2000;

const [role, me, endpoints, scratch, index] = process.argv.slice(2);
const etcd = new Etcd(endpoints.split(','), { timeout: TIMEOUT });
// Its own third attempt at all of them comes after 1.6 s and its fourth after 25 s; the roles try again sooner.
const ONCE = { maxRetries: 0 };
// A watch waits for as long as it takes.
const patient = new Etcd(endpoints.split(','));

let ending = false;
process.stdin.on('end', () => { ending = true; }).resume();

const now = () => Number(process.hrtime.bigint() / 1000000n);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const say = (what) => process.stdout.write(JSON.stringify(what) + '\n');

class Refused extends Error {
  constructor(error) {
    super(`${error.errorCode}: ${error.message}`);
    this.code = error.errorCode;
  }
}
class Unknown extends Error {}

function call(method, ...given) {
  return new Promise((done, failed) => {
    const options = typeof given.at(-1) === 'object' && given.at(-1) !== null ? given.pop() : {};
    etcd[method](...given, { ...ONCE, ...options }, (error, answer) => {
      if (!error) done(answer);
      else if (error.errorCode && error.errorCode < 300) failed(new Refused(error));
      else failed(new Unknown(error.message));
    });
  });
}

const refresh = { prevExist: true, refresh: true, ttl: KEEP_TTL };
const store = {
  get: async (key) => (await call('get', key, { quorum: true })).node,
  set: async (key, value, options = {}) => (await call('set', key, value, options)).node,
  create: async (key, value, ttl) => (await call('set', key, value, ttl ? { prevExist: false, ttl } : { prevExist: false })).node,
  swap: async (key, value, prev, options = {}) => (await call('compareAndSwap', key, value, prev, options)).node,
  append: async (key, value) => (await call('create', key, value)).node,
  remove: async (key, prev) => (await call('compareAndDelete', key, prev)).node,
  listing: async (key) => leaves((await call('get', key, { recursive: true, sorted: true, quorum: true })).node),
};

const leaves = (node) => (node.dir ? (node.nodes || []).flatMap(leaves) : [node.key]);

// One change of `key` from `index` on, or that time.
function wait(key, from, ms) {
  return new Promise((done) => {
    const request = patient.watchIndex(key, from, { ...ONCE }, () => { clearTimeout(timer); done(); });
    const timer = setTimeout(() => { request.abort(); done(); }, ms);
  });
}

const guard = (name) => {
  const directory = path.join(scratch, name);
  return {
    enter(who) {
      try {
        fs.mkdirSync(directory);
      } catch {
        say({ violation: `${who} has ${name} while another has it` });
      }
    },
    leave: () => fs.rmdirSync(directory),
  };
};

async function refused(code, promise) {
  const error = await promise.then(() => null, (failure) => failure);
  assert(error instanceof Refused && error.code === code, `not refused with ${code}: ${error}`);
}

async function basics() {
  const base = `/app/basics-${me}`;
  const first = await store.set(`${base}/a`, 'one');
  const read = await store.get(`${base}/a`);
  assert.deepStrictEqual([read.value, read.createdIndex, read.modifiedIndex], ['one', first.createdIndex, first.modifiedIndex]);
  await refused(NOT_FOUND, store.get(`${base}/none`));
  await refused(EXISTS, store.create(`${base}/a`, 'two'));
  assert.strictEqual((await store.create(`${base}/b`, 'two')).value, 'two');
  await refused(COMPARE_FAILED, store.swap(`${base}/a`, 'x', 'two'));
  const second = await store.swap(`${base}/a`, 'three', 'one');
  assert(second.createdIndex === first.createdIndex && second.modifiedIndex > first.modifiedIndex);
  await refused(COMPARE_FAILED, store.remove(`${base}/a`, 'one'));
  const odd = 'a b+c&d=e%41/?#\u00fc\n"\'';
  await store.set(`${base}/odd`, odd);
  assert.strictEqual((await store.get(`${base}/odd`)).value, odd);
  await store.swap(`${base}/odd`, 'even', odd);
  await store.set(`${base}/deep/er`, 'v', { ttl: 60 });
  const { ttl } = await store.get(`${base}/deep/er`);
  assert(ttl > 50 && ttl <= 60, `a TTL of 60 is ${ttl}`);
  assert.deepStrictEqual(await store.listing(base), ['a', 'b', 'deep/er', 'odd'].map((name) => `${base}/${name}`));
  const keys = [];
  for (const value of 'abc') keys.push((await store.append(`${base}/queue`, value)).key);
  assert.deepStrictEqual(await store.listing(`${base}/queue`), keys);
  await store.remove(`${base}/a`, 'three');
  await refused(NOT_FOUND, store.get(`${base}/a`));
  // And as those use it who cannot wait for an answer.
  assert.strictEqual(etcd.setSync(`${base}/sync`, 'v').body.node.value, 'v');
  assert.strictEqual(etcd.getSync(`${base}/sync`).body.node.value, 'v');
  say({ basics: 'passed' });
}

async function write() {
  for (let count = 1; !ending; count++) {
    const value = `${me}.${count}`;
    try {
      const done = await (count % 3 ? store.set(`/app/write/${me}/${count}`, value) : store.append('/app/queue', value));
      say({ wrote: done.key, value, index: done.modifiedIndex });
      const found = (await store.get(done.key)).value;
      if (found !== value) say({ violation: `${done.key} was acknowledged as ${value}, and then read as ${found}` });
    } catch (error) {
      if (!(error instanceof Unknown)) say({ violation: `writing ${value}: ${error.message}` });
      await sleep(50);
    }
    await sleep(10);
  }
}

async function cas() {
  for (let count = 1; !ending; count++) {
    try {
      const current = (await store.get('/app/register')).value;
      const value = `${parseInt(current, 10) + 1} ${me}.${count}`;
      const done = await store.swap('/app/register', value, current);
      say({ swapped: value, index: done.modifiedIndex });
    } catch (error) {
      if (!(error instanceof Unknown) && error.code !== COMPARE_FAILED) say({ violation: `the register: ${error.message}` });
      if (error instanceof Unknown) await sleep(50);
    }
    await sleep(10);
  }
}

async function keep() {
  await store.set('/app/keep', me, { ttl: KEEP_TTL });
  say({ keeps: KEEP_TTL });
  while (!ending) {
    await sleep(400);
    try {
      // No value: a refresh takes none.
      const done = await call('set', '/app/keep', null, { ...refresh });
      say({ refreshed: done.node.modifiedIndex });
    } catch (error) {
      if (!(error instanceof Unknown)) say({ violation: `refreshing a key that was kept: ${error.message}` });
    }
  }
}

async function claim(key, name, ttl) {
  const first = now();
  while (!ending) {
    const sent = now();
    try {
      return { node: await store.create(key, name, ttl), since: sent };
    } catch (error) {
      if (!(error instanceof Unknown) && error.code !== EXISTS) say({ violation: `claiming ${key}: ${error.message}` });
    }
    try {
      const found = await store.get(key);
      if (found.value === name) return { node: found, since: first };
      await wait(key, found.modifiedIndex + 1, 1000);
    } catch (error) {
      if (error instanceof Unknown) await sleep(50); // else it is free
    }
  }
  return null;
}

async function yieldUp(key, name) {
  for (let tries = 0; tries < 50; tries++) {
    try {
      await store.remove(key, name);
      return;
    } catch (error) {
      if (!(error instanceof Unknown)) return; // by an attempt before, or its time was over
      await sleep(100);
    }
  }
}

async function lock() {
  const held = guard('lock');
  for (let count = 1; !ending; count++) {
    const name = `${me}.${count}`;
    const claimed = await claim('/app/lock', name, LOCK_TTL);
    if (!claimed) break;
    if (claimed.node.ttl >= LOCK_TTL - 1) {
      held.enter(name);
      say({ acquired: claimed.node.createdIndex });
      await sleep(100);
      held.leave();
    }
    await yieldUp('/app/lock', name);
    await sleep(20);
  }
}

// Refreshes a leader's key until `leading.over`; apart from what looks at the clock, because a request may take longer.
async function refreshLeader(name, leading) {
  for (await sleep(300); !leading.over; await sleep(300)) {
    const sent = now();
    try {
      await store.swap('/app/leader', name, name, { ttl: ELECTION_TTL });
      leading.refreshed = sent;
      say({ led: name });
    } catch (error) {
      if (error instanceof Unknown) continue;
      const late = now() - leading.refreshed;
      if (late < ELECTION_TTL * 1000 && !leading.over) {
        say({ violation: `${name} led, and its key was gone ${late} ms after a refresh: ${error.message}` });
      }
      leading.over = true;
    }
  }
}

async function elect() {
  const leads = guard('leader');
  for (let count = 1; !ending; count++) {
    const name = `${me}.${count}`;
    const claimed = await claim('/app/leader', name, ELECTION_TTL);
    if (!claimed) break;
    if (now() - claimed.since < LEADS_FOR) {
      leads.enter(name);
      say({ elected: claimed.node.createdIndex });
      const leading = { refreshed: claimed.since, over: false }, started = now();
      const refreshing = refreshLeader(name, leading);
      while (!ending && !leading.over && now() - started < TERM && now() - leading.refreshed < LEADS_FOR) await sleep(20);
      leads.leave();
      say({ resigned: claimed.node.createdIndex });
      leading.over = true;
      await refreshing;
    }
    await yieldUp('/app/leader', name);
  }
}

// The library's own watch without an end.
function watch() {
  return new Promise((done) => {
    const watcher = patient.watcher('/app', Number(index), { ...ONCE, recursive: true });
    watcher.on('change', ({ action, node }) => {
      say({ event: action, key: node.key, index: node.modifiedIndex, value: node.value ?? null });
      if (node.key === '/app/end') {
        watcher.stop();
        done();
      }
    });
    watcher.on('resync', (error) => say({ violation: `events are gone: ${error.message}` }));
    watcher.on('error', (error) => say({ violation: `not an event: ${JSON.stringify(error.response)}` }));
  });
}

const roles = { basics, write, cas, keep, lock, elect, watch };
roles[role]().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
