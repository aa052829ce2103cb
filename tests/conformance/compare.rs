//! What makes two answers equal: status, headers and body, byte for byte, but for what no two servers share: ids, the
//! positions in their logs, and the clock. Times may be a second apart.
//!
//! The keyspaces' indexes are not mapped: both servers are brought to the same index before a comparison starts.

use crate::wire::{Answer, Request};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// How far the two clocks' readings may be apart, in seconds.
const CLOCK_TOLERANCE: f64 = 1.2;

/// What is not the same, in one line; `None`: nothing.
pub(crate) fn difference(request: &Request, theirs: &Answer, ours: &Answer) -> Option<String> {
    if theirs.status != ours.status {
        return Some(format!("status {} became {}", theirs.status, ours.status));
    }
    let (their_headers, our_headers) = (headers(theirs), headers(ours));
    if their_headers != our_headers {
        return Some(format!("headers {their_headers:?} became {our_headers:?}"));
    }
    if theirs.complete != ours.complete {
        return Some(format!("complete: {} became {}", theirs.complete, ours.complete));
    }
    bodies(&theirs.body, &ours.body, !request.has_flag("sorted"))
}

/// The headers that are compared, sorted; `*` stands for a value of the server's own.
pub(crate) fn headers(answer: &Answer) -> Vec<(&str, &str)> {
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .filter(|(name, _)| !matches!(*name, "Date" | "Content-Length" | "Transfer-Encoding"))
        .map(|(name, value)| match name {
            "X-Etcd-Cluster-Id" | "X-Raft-Index" | "X-Raft-Term" => (name, "*"),
            _ => (name, value),
        })
        .collect();
    headers.sort_unstable();
    headers
}

/// What is not the same about two bodies; etcd lists the nodes of a directory in an order that changes from request to
/// request, unless it is asked to sort them.
pub(crate) fn bodies(theirs: &[u8], ours: &[u8], in_any_order: bool) -> Option<String> {
    if theirs == ours {
        return None;
    }
    let (mut their_text, their_times) = timeless(theirs);
    let (mut our_text, our_times) = timeless(ours);
    if in_any_order && their_text != our_text {
        // Each node's own times stay with it; they are compared as a multiset.
        their_text = ordered(&their_text).unwrap_or(their_text);
        our_text = ordered(&our_text).unwrap_or(our_text);
    }
    if their_text != our_text {
        return Some("bodies".to_owned());
    }
    for (field, times) in &their_times {
        let close = our_times.get(field).is_some_and(|ours| are_close(times, ours));
        if !close {
            return Some(format!("{field}s {times:?} became {:?}", our_times.get(field)));
        }
    }
    None
}

fn are_close(theirs: &[f64], ours: &[f64]) -> bool {
    let sorted = |times: &[f64]| {
        let mut times = times.to_vec();
        times.sort_unstable_by(f64::total_cmp);
        times
    };
    let (theirs, ours) = (sorted(theirs), sorted(ours));
    theirs.len() == ours.len() && theirs.iter().zip(&ours).all(|(a, b)| (a - b).abs() <= CLOCK_TOLERANCE)
}

/// A body with its times taken out, and these, in seconds, by field.
///
/// No key or value can be mistaken for a field: a quote inside of one is escaped.
fn timeless(body: &[u8]) -> (String, BTreeMap<&'static str, Vec<f64>>) {
    let body = String::from_utf8_lossy(body);
    let mut text = String::with_capacity(body.len());
    let mut times = BTreeMap::<_, Vec<f64>>::new();
    let mut rest = &body[..];
    while let Some((field, at)) = ["\"expiration\":\"", "\"ttl\":"]
        .into_iter()
        .filter_map(|field| Some((field, rest.find(field)? + field.len())))
        .min_by_key(|(_, at)| *at)
    {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(['"', ',', '}']).unwrap_or(rest.len());
        let (name, time) = match field {
            "\"ttl\":" => ("ttl", rest[..end].parse().ok()),
            _ if rest.starts_with(['+', '-']) => ("expiration", rest[..end].parse().ok()),
            _ => ("expiration", seconds(&rest[..end])),
        };
        match time {
            Some(time) => times.entry(name).or_default().push(time),
            None => text.push_str(&rest[..end]), // not of the right form: compared as text
        }
        rest = &rest[end..];
    }
    text.push_str(rest);
    (text, times)
}

/// A body with its expirations counted from now, so that it can be compared with one of another day: `+4.98`.
pub(crate) fn relative(body: &[u8]) -> Vec<u8> {
    const FIELD: &str = "\"expiration\":\"";
    let body = String::from_utf8_lossy(body).into_owned();
    let since_epoch =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let now = seconds("1970-01-01T00:00:00Z").unwrap_or_default() + since_epoch;
    let mut parts = body.split(FIELD);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (instant, rest) = part.split_once('"').unwrap_or((part, ""));
        let relative = seconds(instant).map_or(instant.to_owned(), |at| format!("{:+.2}", at - now));
        text.extend([FIELD, &relative, "\"", rest]);
    }
    text.into_bytes()
}

/// Reads `2026-11-22T05:59:26.750729693Z` as seconds since some day.
fn seconds(instant: &str) -> Option<f64> {
    let (date, time) = instant.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, separator| {
        text.split(separator).map(|part| part.parse().ok()).collect::<Option<Vec<f64>>>()
    };
    let (date, time) = (numbers(date, '-')?, numbers(time, ':')?);
    let ([year, month, day], [hour, minute, second]) = (&date[..], &time[..]) else { return None };
    // Days since 0000-03-01, of a year that begins in March.
    let (year, month) = if *month > 2.0 { (*year, month - 3.0) } else { (year - 1.0, month + 9.0) };
    let leap_days = (year / 4.0).floor() - (year / 100.0).floor() + (year / 400.0).floor();
    let days = 365.0 * year + leap_days + ((153.0 * month + 2.0) / 5.0).floor() + day;
    Some(days * 86_400.0 + hour * 3600.0 + minute * 60.0 + second)
}

/// The same JSON with every list of nodes in one order.
fn ordered(body: &str) -> Option<String> {
    // A time was cut out after its field's name.
    let body = body.replace("\"ttl\":,", "\"ttl\":0,").replace("\"ttl\":}", "\"ttl\":0}");
    let mut value: Value = serde_json::from_str(&body).ok()?;
    order(&mut value);
    Some(value.to_string())
}

fn order(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(order);
            items.sort_by_cached_key(Value::to_string);
        }
        Value::Object(fields) => fields.values_mut().for_each(order),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_differ_by_more_than_a_second() {
        let body = |time: &str, ttl: u32| {
            format!(
                r#"{{"node":{{"key":"/\"ttl\":9","expiration":"{time}","ttl":{ttl},"modifiedIndex":5}}}}"#
            )
            .into_bytes()
        };
        let theirs = body("2026-12-31T23:59:59.9Z", 5);
        assert_eq!(bodies(&theirs, &body("2027-01-01T00:00:00.5Z", 6), false), None);
        assert!(
            bodies(&theirs, &body("2027-01-01T00:00:01.2Z", 5), false)
                .is_some_and(|what| what.contains("expiration"))
        );
        assert!(
            bodies(&theirs, &body("2026-12-31T23:59:59.9Z", 7), false)
                .is_some_and(|what| what.contains("ttl"))
        );
        assert!(bodies(&theirs, &body("2026-12-31T23:59:59.9", 5), false).is_some());
    }

    #[test]
    fn order_counts_unless_it_is_any() {
        let (one, other) =
            (br#"{"nodes":[{"key":"/a"},{"key":"/b"}]}"#, br#"{"nodes":[{"key":"/b"},{"key":"/a"}]}"#);
        assert_eq!(bodies(one, other, true), None);
        assert!(bodies(one, other, false).is_some());
        assert!(bodies(one, br#"{"nodes":[{"key":"/b"},{"key":"/c"}]}"#, true).is_some());
    }
}
