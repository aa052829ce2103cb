//! What has to happen so that a member comes to a point.

use super::cluster::Cluster;
use super::http::{Connection, Unanswered};
use super::load::Load;
use super::plan::points;
use rustix::process::Signal;
use std::time::Duration;

/// Who is crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Leader,
    /// A follower.
    Another,
}

/// When a member is crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// One of the founders, before there is a cluster, from point to point.
    Founding,
    /// Clients write, and everybody keeps that.
    Writing(Whose),
    /// A follower comes back after the log went on without it: the leader sends its state.
    Behind(Whose),
    /// A follower whose state was replaced and its log not yet, as an earlier crash left it.
    Recovering,
    /// A member is to be added.
    Adding(Whose),
    /// The new one, from its first start until it has the state, from point to point.
    Joining,
    /// It gets its vote.
    Promoting(Whose),
    /// A member is to be removed.
    Removing(Whose),
    /// That one: it led, or it did not.
    Leaving(Whose),
    /// The leader is told to stop.
    Stopping,
    /// The last one goes on by itself.
    Alone,
    /// One of those who find each other by a discovery URL, from point to point.
    Discovering,
    /// One who comes to that URL when the cluster is full.
    StandingBy,
}

use Scene::{
    Adding, Alone, Behind, Discovering, Founding, Joining, Leaving, Promoting, Recovering, Removing,
    StandingBy, Stopping, Writing,
};
use Whose::{Another, Leader};

/// Large, so that a snapshot takes several chunks.
const BULK: (usize, usize) = (6, 100_000);

pub fn found(cluster: &mut Cluster) {
    (1..3).for_each(|at| cluster.start(at, &[]));
    for point in points(Founding) {
        cluster.arm(0, point);
        cluster.start(0, &[]);
        cluster.await_crash(0, point, |_| {});
    }
    cluster.start(0, &[]);
    cluster.check("founding");
    let mut connection = Connection::new(cluster.slots[1].client_port, Duration::from_secs(5));
    for number in 0..BULK.0 {
        let path = format!("/v2/keys/bulk/{number}");
        cluster.until(1, "bulk is written", |_| connection.put(&path, &"b".repeat(BULK.1)).ok());
    }
    let ports: Vec<u16> = cluster.members.iter().map(|at| cluster.slots[*at].client_port).collect();
    cluster.load = Some(Load::start(&ports, 2));
}

fn victim(cluster: &mut Cluster, whose: Whose) -> usize {
    if whose == Leader { cluster.leader() } else { cluster.follower() }
}

pub fn write(cluster: &mut Cluster) {
    for whose in [Leader, Another] {
        for point in points(Writing(whose)) {
            let victim = victim(cluster, whose);
            cluster.arm(victim, point);
            cluster.await_crash(victim, point, |_| {});
            cluster.start(victim, &[]);
            cluster.check(&format!("{point} of {whose:?}"));
        }
    }
}

fn checkpoints(cluster: &Cluster, at: usize) -> usize {
    cluster.log(at).matches("wrote a checkpoint").count()
}

/// Kills a follower and waits until the others have thrown away what it would need of the log.
fn fall_behind(cluster: &mut Cluster) -> usize {
    let away = cluster.follower();
    cluster.kill(away);
    let others: Vec<usize> = cluster.members.iter().copied().filter(|at| *at != away).collect();
    let before: Vec<usize> = others.iter().map(|at| checkpoints(cluster, *at)).collect();
    for (at, before) in others.into_iter().zip(before) {
        // The first may have been begun before; the log is kept back to the second to last; the last began when it was cut.
        cluster.until(at, "checkpoints without it", |cluster| {
            (checkpoints(cluster, at) >= before + 4).then_some(())
        });
    }
    away
}

pub fn send_state(cluster: &mut Cluster) {
    for whose in [Leader, Another] {
        for point in points(Behind(whose)) {
            let away = fall_behind(cluster);
            let victim = if whose == Leader { cluster.leader() } else { away };
            cluster.arm(victim, point);
            cluster.start(away, &[]);
            cluster.await_crash(victim, point, |_| {});
            cluster.start(victim, &[]);
            cluster.check(&format!("{point} of {whose:?}"));
        }
    }
    for point in points(Recovering) {
        let away = fall_behind(cluster);
        cluster.arm(away, "install.checkpointed");
        cluster.start(away, &[]);
        cluster.await_crash(away, "install.checkpointed", |_| {});
        cluster.arm(away, point);
        cluster.start(away, &[]);
        cluster.await_crash(away, point, |_| {});
        cluster.start(away, &[]);
        cluster.check(point);
    }
}

/// Adds the vacant one, has it join, and removes it again, with crashes all the way.
pub fn come_and_go(cluster: &mut Cluster, whose: Whose) {
    let newcomer = cluster.vacant();
    for point in points(Adding(whose)) {
        let victim = victim(cluster, whose);
        cluster.arm(victim, point);
        cluster.await_crash(victim, point, |cluster| ask_to_add(cluster, victim, newcomer));
        cluster.start(victim, &[]);
        cluster.check(&format!("{point} of {whose:?}"));
    }
    cluster.slots[newcomer].joins = true;
    cluster.until(newcomer, "it is listed", |cluster| {
        let asked = cluster.members[0];
        ask_to_add(cluster, asked, newcomer);
        id_of(cluster, newcomer).map(drop)
    });
    if whose == Leader {
        for point in points(Joining) {
            cluster.arm(newcomer, point);
            cluster.start(newcomer, &[]);
            cluster.await_crash(newcomer, point, |_| {});
        }
    }
    for point in points(Promoting(whose)) {
        let victim = victim(cluster, whose);
        cluster.arm(victim, point);
        cluster.start(newcomer, &[]);
        cluster.await_crash(victim, point, |_| {});
        cluster.start(victim, &[]);
    }
    join_in(cluster, newcomer);
    cluster.check(&format!("joining, and the vote, at the {whose:?}"));
    for point in points(Removing(whose)) {
        if cluster.leader() == newcomer {
            cluster.kill(newcomer);
            cluster.leader();
            cluster.start(newcomer, &[]);
        }
        let victim = loop {
            match victim(cluster, whose) {
                it if it == newcomer => {}
                other => break other,
            }
        };
        cluster.arm(victim, point);
        cluster.await_crash(victim, point, |cluster| ask_to_remove(cluster, victim, newcomer));
        cluster.start(victim, &[]);
    }
    remove(cluster, newcomer);
    cluster.check(&format!("removing another, at the {whose:?}"));
}

/// A member that is to leave is crashed when it hears of it, and does not come back.
pub fn leave(cluster: &mut Cluster, whose: Whose) {
    let newcomer = cluster.vacant();
    cluster.slots[newcomer].joins = true;
    cluster.until(newcomer, "it is listed", |cluster| {
        let asked = cluster.members[0];
        ask_to_add(cluster, asked, newcomer);
        id_of(cluster, newcomer).map(drop)
    });
    cluster.start(newcomer, &[]);
    join_in(cluster, newcomer);
    for point in points(Leaving(whose)) {
        let leaver = victim(cluster, whose);
        let asked = cluster.members.iter().copied().find(|at| *at != leaver).unwrap();
        cluster.arm(leaver, point);
        cluster.await_crash(leaver, point, |cluster| ask_to_remove(cluster, asked, leaver));
        cluster.start(leaver, &[]);
        remove(cluster, leaver);
        cluster.check(&format!("leaving of {whose:?}"));
    }
}

/// Waits until a newcomer is a member like the others.
fn join_in(cluster: &mut Cluster, newcomer: usize) {
    let name = format!("m{newcomer}");
    cluster.until(newcomer, "the newcomer gets its vote", |cluster| {
        let listed = cluster.get(cluster.members[0], "/v2/members")?.body;
        let found = listed["members"].as_array()?.iter().find(|member| member["name"] == *name)?;
        (found["isLearner"] != true).then_some(())
    });
    cluster.members.push(newcomer);
}

/// Removes a member if it is not yet, waits until it says that it was, and empties its directory.
fn remove(cluster: &mut Cluster, leaver: usize) {
    cluster.members.retain(|at| *at != leaver);
    let asked = cluster.members[0];
    cluster.until(asked, "it is removed", |cluster| {
        ask_to_remove(cluster, asked, leaver);
        let listed = cluster.get(asked, "/v2/members")?.body;
        let members = listed["members"].as_array()?;
        members.iter().all(|member| member["peerURLs"][0] != *cluster.slots[leaver].peer_url).then_some(())
    });
    cluster.until(leaver, "it says that it was removed", |cluster| {
        let health = cluster.get(leaver, "/health")?;
        (health.body["health"] == "false" && cluster.said(leaver).contains("was removed from its cluster"))
            .then_some(())
    });
    cluster.wipe(leaver);
}

fn id_of(cluster: &Cluster, at: usize) -> Option<String> {
    let listed = cluster.members.iter().find_map(|asked| cluster.get(*asked, "/v2/members"))?.body;
    let url = &cluster.slots[at].peer_url;
    let found = listed["members"].as_array()?.iter().find(|member| member["peerURLs"][0] == **url)?;
    found["id"].as_str().map(str::to_owned)
}

/// Whether it is answered is not asked: it is asked again until it is so.
fn ask_to_add(cluster: &Cluster, asked: usize, newcomer: usize) {
    if id_of(cluster, newcomer).is_some() {
        return;
    }
    let body = serde_json::json!({ "peerURLs": [cluster.slots[newcomer].peer_url] }).to_string();
    let mut connection = Connection::new(cluster.slots[asked].client_port, Duration::from_secs(2));
    let _ = connection.send("POST", "/v2/members", "application/json", &body);
}

fn ask_to_remove(cluster: &Cluster, asked: usize, leaver: usize) {
    let Some(id) = id_of(cluster, leaver) else { return };
    let mut connection = Connection::new(cluster.slots[asked].client_port, Duration::from_secs(2));
    let _: Result<_, Unanswered> = connection.delete(&format!("/v2/members/{id}"));
}

pub fn stop(cluster: &mut Cluster) {
    for point in points(Stopping) {
        let victim = cluster.leader();
        cluster.arm(victim, point);
        cluster.signal(victim, Signal::TERM);
        cluster.await_crash(victim, point, |_| {});
        cluster.start(victim, &[]);
        cluster.check(point);
    }
}

/// Another cluster, which finds itself by way of this one.
pub fn discover(service: &mut Cluster) {
    let at = service.members[0];
    let port = service.slots[at].client_port;
    let mut connection = Connection::new(port, Duration::from_secs(5));
    service.until(at, "a token", |_| {
        let answer = connection.put("/v2/keys/discovery/crashes/_config/size", "3").ok()?;
        matches!(answer.status, 200 | 201).then_some(())
    });
    let mut cluster = Cluster::new();
    cluster.discovery = Some(format!("http://127.0.0.1:{port}/v2/keys/discovery/crashes"));
    (1..3).for_each(|at| cluster.start(at, &[]));
    for point in points(Discovering) {
        cluster.arm(0, point);
        cluster.start(0, &[]);
        cluster.await_crash(0, point, |_| {});
    }
    cluster.start(0, &[]);
    cluster.check("finding each other");
    let extra = cluster.vacant();
    for point in points(StandingBy) {
        cluster.arm(extra, point);
        cluster.start(extra, &[]);
        cluster.await_crash(extra, point, |_| {});
    }
    cluster.start(extra, &[]);
    cluster.members.push(extra);
    cluster.check("standing by");
    let listed = cluster.get(extra, "/v2/members").expect("it lists the members").body;
    let learners = listed["members"].as_array().unwrap().iter().filter(|m| m["isLearner"] == true).count();
    assert_eq!((listed["members"].as_array().unwrap().len(), learners), (4, 1), "{listed}");
    service.crashes += cluster.crashes;
}

/// All but one are gone for good. The one has all that was acknowledged, as its state was that of the others.
pub fn go_on_alone(cluster: &mut Cluster) {
    cluster.load.iter().for_each(|load| load.pause(true));
    // A request takes less than this.
    std::thread::sleep(Duration::from_secs(1));
    cluster.agree("everything before");
    let survivor = cluster.members[0];
    (0..cluster.slots.len()).for_each(|at| cluster.kill(at));
    cluster.members = vec![survivor];
    for point in points(Alone) {
        cluster.arm(survivor, point);
        cluster.start(survivor, &["--force-new-cluster"]);
        cluster.await_crash(survivor, point, |_| {});
    }
    cluster.start(survivor, &["--force-new-cluster"]);
    cluster.check("going on alone");
}
