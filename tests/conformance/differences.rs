//! The differences from etcd 3.4 that are meant, each with its reason. Whatever else differs is a bug.

use crate::compare;
use crate::wire::{Answer, Request};

/// A difference that is meant.
#[derive(Debug)]
pub(crate) struct Meant {
    pub(crate) what: &'static str,
    pub(crate) why: &'static str,
    /// Whether it explains these two answers, theirs and ours. As narrow as can be.
    applies: fn(&Request, &Answer, &Answer) -> bool,
}

/// All of them.
pub(crate) const MEANT: [Meant; 12] = [
    Meant {
        what: "what is no HTTP is refused in other words",
        why: "both servers close the connection; the answer is that of the HTTP library",
        applies: |_, theirs, ours| {
            let by_library = |answer: &Answer| {
                matches!(answer.status, 400 | 501 | 505) && answer.header("Connection") == Some("close")
            };
            by_library(theirs) && by_library(ours) && theirs.index().is_none() && ours.index().is_none()
        },
    },
    Meant {
        what: "a target with bytes that no URL may have is refused",
        why: "RFC 3986 wants them escaped, and every client escapes them; Go lets a few through",
        applies: |request, _, ours| {
            let in_url = |byte: &u8| byte.is_ascii_graphic() && !b"\"<>\\^`{}|".contains(byte);
            let is_url = request.target.iter().all(in_url);
            !is_url && ours.status == 400 && ours.header("Connection") == Some("close")
        },
    },
    Meant {
        what: "a # ends the target",
        why: "RFC 9112 has no fragments in requests, and no client sends one; the HTTP library cuts it off",
        applies: |request, _, _| request.target.contains(&b'#'),
    },
    Meant {
        what: "HTTP/1.2 is refused",
        why: "there is no such version; Go takes it for 1.1",
        applies: |request, _, ours| request.version == "HTTP/1.2" && ours.status == 400,
    },
    Meant {
        what: "a body that is no HTTP is said to be broken",
        why: "the HTTP library does not say how; status and error number are the same",
        applies: |_, theirs, ours| {
            let is_210 =
                |answer: &Answer| answer.status == 400 && answer.body.starts_with(b"{\"errorCode\":210,");
            is_210(theirs)
                && is_210(ours)
                && String::from_utf8_lossy(&ours.body).contains("the request body is broken")
        },
    },
    Meant {
        what: "CONNECT to a host is a bad request",
        why: "this is no proxy; Go looks for a page with an empty name",
        applies: |request, _, ours| request.method == "CONNECT" && ours.status == 400,
    },
    Meant {
        what: "a time to live beyond the clock is cut to 7,900 years",
        why: "etcd's arithmetic wraps: some such keys never expire, others at once",
        applies: |request, theirs, ours| {
            let form = String::from_utf8_lossy(&request.body).into_owned();
            let ttl = form.split('&').find_map(|pair| pair.strip_prefix("ttl=")?.parse::<u64>().ok());
            let in_answer =
                |ttl: u64| String::from_utf8_lossy(&ours.body).contains(&format!("\"ttl\":{ttl},"));
            ttl.is_some_and(|ttl| {
                ttl > i64::MAX as u64 / 1_000_000_000
                    && theirs.status == ours.status
                    && in_answer(ttl.min(250_000_000_000))
            })
        },
    },
    Meant {
        what: "a body that is no member is refused in other words",
        why: "the words are those of the JSON parser, there Go's",
        applies: |request, theirs, ours| {
            request.target.starts_with(b"/v2/members") && theirs.status == 400 && ours.status == 400
        },
    },
    Meant {
        what: "a target in absolute form without a path means the root",
        why: "RFC 9112 says that it does; Go redirects to the root instead",
        applies: |request, theirs, ours| {
            let path = request.target.strip_prefix(b"http://other").and_then(|path| path.first());
            let to_root = theirs.header("Location").is_some_and(|to| to == "/" || to.starts_with("/?"));
            request.target.starts_with(b"http://other")
                && path != Some(&b'/')
                && to_root
                && ours.status == 404
        },
    },
    Meant {
        what: "a stream that began in the past goes on",
        why: "etcd sends the one past event and then nothing for ever, which no client can want",
        applies: |request, theirs, ours| {
            let is_stream = request.has_flag("stream") && request.has_flag("wait");
            let sent = String::from_utf8_lossy(&theirs.body).lines().count();
            let began = ours.body.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            let same = compare::bodies(&theirs.body, &ours.body[..began], false).is_none();
            is_stream && String::from_utf8_lossy(request.query()).contains("waitIndex=") && sent == 1 && same
        },
    },
    Meant {
        what: "a stream gets the removal of the very path it watches once",
        why: "etcd sends that event twice, which is a bug: the two are one event at one index",
        applies: |request, theirs, ours| {
            let lines = |answer: &Answer| {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                text.lines().map(str::to_owned).collect::<Vec<_>>()
            };
            let mut once = lines(theirs);
            let all = once.len();
            once.dedup_by(|next, line| next == line && line.contains("elete\""));
            let text = once.join("\n") + "\n";
            let same = compare::bodies(text.as_bytes(), &ours.body, false).is_none();
            request.has_flag("stream") && once.len() < all && same
        },
    },
    Meant {
        what: "a wait in the past does not hear of the removal of a directory with a name like its own",
        why: "etcd compares raw prefixes there: a watcher of /wdx hears that /wd was removed",
        applies: |request, theirs, ours| {
            let event: serde_json::Value = serde_json::from_slice(&theirs.body).unwrap_or_default();
            let removed = event["node"]["key"].as_str().unwrap_or_default();
            let watched = String::from_utf8_lossy(&request.key()).into_owned();
            let rest = watched.strip_prefix(removed).unwrap_or_default();
            event["node"]["dir"] == true
                && !rest.is_empty()
                && !rest.starts_with('/')
                && theirs.body != ours.body
        },
    },
];

/// The one that explains why two answers differ.
pub(crate) fn explain(request: &Request, theirs: &Answer, ours: &Answer) -> Option<&'static Meant> {
    MEANT.iter().find(|meant| (meant.applies)(request, theirs, ours))
}

#[test]
fn each_has_its_reason() {
    for meant in &MEANT {
        assert!(!meant.why.is_empty(), "{}", meant.what);
    }
}
