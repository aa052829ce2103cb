//! Who hears whom.

use crate::faults::Fault;
use crate::nemesis::Nemesis;
use rand::RngExt as _;

impl Nemesis {
    /// Cuts the network as this fault has it.
    pub fn cut(&mut self, fault: Fault) {
        let size = self.size();
        let order = self.some(size);
        let mut say = format!("{fault:?}");
        match fault {
            Fault::Split => {
                let (one, other) = order.split_at(size / 2);
                self.hosts.cut_apart(one, other);
                say = format!("split: {} | {}", self.names(one), self.names(other));
            }
            Fault::CutOffLeader => {
                let leader = self.leader();
                let others = order.iter().filter(|other| **other != leader);
                others.for_each(|other| self.hosts.cut_both_ways(leader, *other));
                say = format!("cut off {}", self.names(&[leader]));
            }
            Fault::Bridge => {
                let (bridge, rest) = order.split_first().expect("members");
                let (one, other) = rest.split_at(rest.len() / 2);
                self.hosts.cut_apart(one, other);
                say = format!(
                    "bridge: {} | {} with {} between",
                    self.names(one),
                    self.names(other),
                    self.names(&[*bridge])
                );
            }
            Fault::Ring => {
                for (at, one) in order.iter().enumerate() {
                    for (other_at, other) in order.iter().enumerate().skip(at + 2) {
                        // Of three, each is next to each: one pair is cut, so that it is a line.
                        if size == 3 || at + size - other_at > 1 {
                            self.hosts.cut_both_ways(*one, *other);
                        }
                    }
                }
                say = format!("ring: {}", self.names(&order));
            }
            Fault::LeaderOneWay => {
                let (leader, deaf) = (self.leader(), self.chance.random_range(0..2) == 0);
                for other in order.into_iter().filter(|other| *other != leader) {
                    if deaf { self.hosts.cut(other, leader) } else { self.hosts.cut(leader, other) }
                }
                say = format!(
                    "{} {}",
                    self.names(&[leader]),
                    if deaf { "hears nobody" } else { "is not heard" }
                );
            }
            _ => {
                for from in 0..size {
                    for to in (0..size).filter(|to| *to != from) {
                        if self.chance.random_range(0..3) == 0 {
                            self.hosts.cut(from, to);
                            say.push(' ');
                            say.push_str(&self.names(&[from, to]).replace(' ', ">"));
                        }
                    }
                }
            }
        }
        self.history.fault(&say);
        self.hosts.apply();
    }
}
