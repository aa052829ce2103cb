//! A machine that is gone for good, and the one that takes its place.

use crate::nemesis::Nemesis;
use crate::wire::Answer;
use reqwest::Method;
use std::time::Duration;

impl Nemesis {
    /// Asks the others until one says what is wanted.
    fn insist(
        &self,
        absent: usize,
        method: &Method,
        rest: &str,
        body: &str,
        wanted: fn(&Answer) -> bool,
    ) -> bool {
        for attempt in 1..60 {
            let asked = (absent + 1 + attempt % (self.size() - 1)) % self.size();
            let answer = self.wire.ask(method.clone(), asked, rest, body, Duration::from_secs(2));
            if self.runtime.block_on(answer).is_ok_and(|answer| wanted(&answer)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        false
    }

    /// What the others list of it.
    fn entry(&self, victim: usize) -> Option<serde_json::Value> {
        let asked = (victim + 1) % self.size();
        let answer = self.wire.ask(Method::GET, asked, "/v2/members", "", Duration::from_secs(2));
        let answer = self.runtime.block_on(answer).ok()?;
        let name = self.members[victim].name();
        answer.body["members"].as_array()?.iter().find(|entry| entry["name"] == *name).cloned()
    }

    pub fn replace(&mut self) {
        let victim = self.anybody();
        let name = self.members[victim].name();
        self.history.fault(&format!("replace {name}"));
        // It may not have caught up with what was before.
        let patiently = |ready: &dyn Fn() -> Option<String>| {
            (0..100).find_map(|_| {
                ready().or_else(|| {
                    std::thread::sleep(Duration::from_millis(300));
                    None
                })
            })
        };
        let Some(id) = patiently(&|| Some(self.entry(victim)?["id"].as_str()?.to_owned())) else {
            return self.history.violation(format!("{name} is not listed"));
        };
        self.members[victim].kill();
        let rest = format!("/v2/members/{id}");
        if !self.insist(victim, &Method::DELETE, &rest, "", |answer| matches!(answer.status, 204 | 404 | 410))
        {
            return self.history.violation(format!("{name} cannot be removed"));
        }
        self.members[victim].become_new();
        let url = format!("http://{}:7001", crate::hosts::address(victim));
        let body = serde_json::json!({ "name": name, "peerURLs": [url] }).to_string();
        // 409: an attempt before, of which nothing was heard.
        if !self
            .insist(victim, &Method::POST, "/v2/members", &body, |answer| matches!(answer.status, 201 | 409))
        {
            return self.history.violation(format!("{name} cannot be added"));
        }
        self.start(victim);
        let votes = || self.entry(victim).filter(|entry| entry["isLearner"] != true).map(|_| String::new());
        if patiently(&votes).is_none() {
            self.history.violation(format!("{name}, which is new, has no vote after half a minute"));
        }
    }
}
