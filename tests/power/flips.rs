//! A flipped bit in each kind of file of a member that is down: it is noticed, the file is named by the member and by
//! `quorate check`, what the message says to do heals the member from its peers, and no wrong value is ever served.

use crate::cluster::{Cluster, Member, START_TIMEOUT, server};
use crate::http::{Answer, Connection};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const KEYS: u64 = 150;
const VICTIM: usize = 2;

/// What a member does about damage.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// It says so and goes on: there is another copy, or it was a hint.
    GoesOn,
    /// The same; but it does not look at the file when it starts.
    GoesOnUnseen,
    /// It refuses to start, and is to be removed, emptied and added.
    Rejoins,
    /// It refuses to start until the file is deleted.
    FileDeleted,
}

struct Kind {
    file: fn(&Path) -> PathBuf,
    outcome: Outcome,
}

const KINDS: [Kind; 9] = [
    Kind { file: |member| newest(&member.join("log"), ".raftlog", 0), outcome: Outcome::Rejoins },
    Kind { file: |member| member.join("log/synced"), outcome: Outcome::GoesOn },
    Kind { file: |member| checkpoint(member, 0).join("db"), outcome: Outcome::GoesOn },
    Kind { file: |member| checkpoint(member, 0).join("conf"), outcome: Outcome::GoesOn },
    Kind { file: |member| checkpoint(member, 0).join("MANIFEST"), outcome: Outcome::GoesOn },
    Kind { file: |member| checkpoint(member, 1).join("db"), outcome: Outcome::GoesOnUnseen },
    Kind { file: |member| member.join("identity"), outcome: Outcome::Rejoins },
    Kind { file: |member| member.join("notes/origin"), outcome: Outcome::FileDeleted },
    Kind { file: |member| member.join("clock"), outcome: Outcome::GoesOn },
];

/// The newest, or an older one, by name.
fn newest(dir: &Path, suffix: &str, older: usize) -> PathBuf {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_number = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.strip_suffix(suffix).is_some_and(|number| number.chars().all(|c| c.is_ascii_hexdigit()))
    };
    let mut found: Vec<PathBuf> = names.filter(is_number).collect();
    found.sort();
    found.swap_remove(found.len() - 1 - older)
}

fn checkpoint(member: &Path, older: usize) -> PathBuf {
    newest(&member.join("state"), "", older)
}

/// Damages each kind of file `rounds` times.
pub fn run(seed: u64, rounds: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut cluster = Cluster::new(3, &["--snapshot-count", "20"]);
    cluster.members.iter_mut().for_each(Member::start);
    cluster.wait_healthy();
    let mut connection = Connection::new(cluster.members[0].client_port, Duration::from_secs(5));
    let mut keys = 0;
    for _ in 0..rounds {
        for kind in &KINDS {
            // Something new each time, so that there are checkpoints and a log to damage.
            for _ in 0..KEYS / KINDS.len() as u64 * 3 {
                let written = connection.put(&format!("/v2/keys/flip/{keys}"), &format!("{keys}&ttl=9999"));
                assert!(written.is_ok_and(|answer| answer.status == 201));
                keys += 1;
            }
            expect_values(&cluster, keys);
            damage(&mut cluster, kind, keys, &mut rng);
            expect_values(&cluster, keys);
        }
    }
    cluster.discard();
}

fn damage(cluster: &mut Cluster, kind: &Kind, keys: u64, rng: &mut ChaCha8Rng) {
    // A checkpoint that is being written then is of no use, and is not what is damaged here.
    std::thread::sleep(Duration::from_millis(300));
    cluster.members[VICTIM].kill();
    let data = cluster.members[VICTIM].data();
    let path = (kind.file)(&data.join("member"));
    let at = flip(&path, rng);
    let name = format!("{}, byte {at}", path.display());

    let checked = Command::new(server()).arg("check").arg(&data).output().unwrap();
    let text = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(text.contains(&path.display().to_string()), "check does not name {name}: {text}");

    let said_before = said(&cluster.members[VICTIM]).len();
    cluster.members[VICTIM].start();
    let serves = cluster.serves(VICTIM);
    let text = said(&cluster.members[VICTIM])[said_before..].to_owned();
    assert!(!text.contains("panicked"), "{name}: {text}");
    // The engine writes of a file in its own words first; a checkpoint is named as a whole.
    let named = path.ancestors().take(2).any(|part| text.contains(&part.display().to_string()));
    assert!(named || kind.outcome == Outcome::GoesOnUnseen, "{name} is not named: {text}");
    match kind.outcome {
        Outcome::GoesOn | Outcome::GoesOnUnseen => assert!(serves, "{name}: {text}"),
        Outcome::Rejoins => {
            assert!(!serves && text.contains("add it again"), "{name}: {text}");
            rejoin(cluster);
        }
        Outcome::FileDeleted => {
            assert!(!serves && text.contains("delete it"), "{name}: {text}");
            fs::remove_file(&path).unwrap();
            cluster.members[VICTIM].kill();
            cluster.members[VICTIM].start();
            assert!(cluster.serves(VICTIM), "{}", said(&cluster.members[VICTIM]));
        }
    }
    expect_values(cluster, keys);
}

fn said(member: &Member) -> String {
    fs::read_to_string(&member.log).unwrap()
}

/// Flips one bit of what the file really holds; gives where.
fn flip(path: &Path, rng: &mut ChaCha8Rng) -> usize {
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // The head of a file of the log says how its batches are aligned, which is a hint.
    let first = if path.extension().is_some_and(|extension| extension == "raftlog") { used / 2 } else { 0 };
    let at = rng.random_range(first..used);
    bytes[at] ^= 1 << rng.random_range(0..8);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    file.sync_all().unwrap();
    at
}

/// What the message of a member that cannot start says to do.
fn rejoin(cluster: &mut Cluster) {
    let mut peer = Connection::new(cluster.members[0].client_port, Duration::from_secs(10));
    let victim = &mut cluster.members[VICTIM];
    victim.kill();
    let listed = peer.get("/v2/members").unwrap().body;
    let own = |member: &&serde_json::Value| member["peerURLs"][0] == *victim.peer_url;
    let id =
        listed["members"].as_array().unwrap().iter().find(own).unwrap()["id"].as_str().unwrap().to_owned();
    let removed = peer.delete(&format!("/v2/members/{id}"));
    assert!(removed.as_ref().is_ok_and(|answer| answer.status == 204), "{:?}", removed.map(|a| a.body));
    fs::remove_dir_all(victim.data()).unwrap();
    let body = format!("{{\"peerURLs\":[\"{}\"]}}", victim.peer_url);
    let added = peer.send("POST", "/v2/members", "application/json", &body);
    assert!(added.as_ref().is_ok_and(|answer| answer.status == 201), "{:?}", added.map(|a| a.body));
    victim.joins();
    victim.start();
    assert!(cluster.serves(VICTIM), "{}", said(&cluster.members[VICTIM]));
}

/// Every member comes to hold every value; and until then, and after, none that is wrong.
fn expect_values(cluster: &Cluster, keys: u64) {
    let deadline = Instant::now() + START_TIMEOUT;
    for (at, member) in cluster.members.iter().enumerate() {
        let mut connection = Connection::new(member.client_port, Duration::from_secs(5));
        let mut found = 0;
        while found < keys {
            assert!(Instant::now() < deadline, "member {at} has {found} of {keys}: {}", member.said());
            let listed = connection.get("/v2/keys/flip?recursive=true&quorum=false");
            let Some(Answer { status: 200, body }) = listed else { continue };
            let nodes = body["node"]["nodes"].as_array().unwrap();
            for node in nodes {
                let (key, value) = (node["key"].as_str().unwrap(), node["value"].as_str().unwrap());
                assert_eq!(key, format!("/flip/{value}"), "a wrong value on member {at}");
            }
            found = nodes.len() as u64;
        }
    }
}
