//! Waits that the server sees to without the HTTP library: nobody can tell, but by the memory.

use super::{PATIENCE, Server, body, eventually, rest, status, unchunked, until, wait_request};
use quorate::http::ServeConfig;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Where an answer in chunks ends.
const END: &str = "\r\n0\r\n\r\n";

#[tokio::test]
async fn waits_and_other_requests_take_turns_on_a_connection() {
    let server = Server::start(ServeConfig::default()).await;
    let mut client = server.connect().await;
    // A line whose length needs one digit more, in each turn.
    for (turn, length) in [10, 100, 4_000, 60_000, 300_000].into_iter().enumerate() {
        let (key, value) = (format!("/v2/keys/k{turn}"), "x".repeat(length));
        client.write_all(wait_request(&format!("{key}?wait=true")).as_bytes()).await.unwrap();
        let head = until(&mut client, "\r\n\r\n").await;
        assert!(
            head.contains("\r\nTransfer-Encoding: chunked\r\n") && !head.contains("\r\nConnection:"),
            "{head}"
        );
        eventually(|| server.member.watchers() == 1).await;
        let written = server.send("PUT", &key, &format!("value={value}")).await;
        let told = until(&mut client, END).await;
        let whole = format!("{head}{told}");
        assert_eq!(unchunked(&whole), body(&written));
        assert_eq!(status(&whole), "200");
        client.write_all(wait_request(&format!("{key}?quorum=false")).as_bytes()).await.unwrap();
        let answer = until(&mut client, "}}\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(&value));
    }
}

#[tokio::test]
async fn what_is_sent_behind_a_wait_is_answered_behind_it() {
    let server = Server::start(ServeConfig::default()).await;
    let mut client = server.connect().await;
    let value = "y".repeat(50_000);
    let put = format!(
        "PUT /v2/keys/b HTTP/1.1\r\nHost: m\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\nvalue={value}",
        value.len() + 6
    );
    let all = [
        wait_request("/v2/keys/a?wait=true"),
        put,
        wait_request("/v2/keys/b?wait=true&waitIndex=1"), // there is something to tell at once
        wait_request("/v2/keys/c?wait=true"),
        wait_request("/v2/keys/b").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
    ]
    .concat();
    // In one go, and in pieces that come before, at and after the moment of the first wait.
    for pieces in [1, 2, 7, 300] {
        let len = all.len().div_ceil(pieces);
        for piece in all.as_bytes().chunks(len) {
            client.write_all(piece).await.unwrap();
            if pieces > 1 {
                tokio::task::yield_now().await;
            }
        }
        eventually(|| server.member.watchers() == 1).await;
        server.send("PUT", "/v2/keys/a", "value=1").await;
        eventually(|| server.member.watchers() == 1).await;
        let early = until(&mut client, "HTTP/1.1 201").await;
        assert!(early.contains("\"key\":\"/a\""), "{early}");
        // The wait for `/c` is not there before the answer about `/b` is.
        let more = until(&mut client, END).await;
        assert!(more.contains("\"key\":\"/b\""));
        until_watched(&server).await;
        server.send("PUT", "/v2/keys/c", "value=1").await;
        let last = rest(&mut client).await;
        let (of_c, of_b) = (last.find("\"key\":\"/c\"").unwrap(), last.rfind("\"key\":\"/b\"").unwrap());
        assert!(of_c < of_b && last.contains("\r\nConnection: close\r\n"), "{last}");
        server.send("DELETE", "/v2/keys/b", "").await;
        client = server.connect().await;
    }
}

async fn until_watched(server: &Server) {
    eventually(|| server.member.watchers() == 1).await;
}

#[tokio::test]
async fn what_leaves_doubt_is_left_to_the_library() {
    let server = Server::start(ServeConfig::default()).await;
    for (target, version, headers, body_sent) in [
        ("?wait=true", "1.0", "", ""),
        ("?wait=true", "1.0", "Connection: keep-alive\r\n", ""),
        ("?wait=true", "1.1", "Connection: close\r\n", ""),
        ("?wait=true", "1.1", "Connection: Keep-Alive\r\nContent-Length: 9\r\n", "recursive"),
        ("?wait=true", "1.1", "Connection: close\r\nTE: trailers\r\n", ""),
        (
            "?wait=true&stream=true&waitTimeout=1",
            "1.1",
            "Transfer-Encoding: chunked\r\n",
            "3\r\na=b\r\n0\r\n\r\n",
        ),
    ] {
        let mut client = server.connect().await;
        let request = format!("GET /v2/keys/k{target} HTTP/{version}\r\nHost: m\r\n{headers}\r\n{body_sent}");
        client.write_all(request.as_bytes()).await.unwrap();
        until_watched(&server).await;
        let written = server.send("PUT", "/v2/keys/k", "value=1").await;
        let event = body(&written);
        let told = until(&mut client, event.trim_end()).await;
        assert_eq!(told.contains("\r\nTransfer-Encoding: chunked\r\n"), version == "1.1", "{told}");
        if headers.contains("Content-Length") || headers.contains("Transfer") {
            // Where the next request begins is known.
            client.write_all(b"GET /version HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").await.unwrap();
            let end = rest(&mut client).await;
            assert!(end.contains("etcdserver") && end.matches("HTTP/1.1 ").count() == 1, "{end}");
        }
        drop(client);
        eventually(|| server.member.watchers() == 0).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_is_missed_whatever_it_has_sent_behind_its_wait() {
    let server = Server::start(ServeConfig::default()).await;
    for behind in ["\r\n", "GET /v2/", &wait_request("/v2/keys/k"), &"x".repeat(12_000)] {
        for pause in [false, true] {
            let mut client = server.connect().await;
            client.write_all(wait_request("/v2/keys/k?wait=true").as_bytes()).await.unwrap();
            if pause {
                until(&mut client, "\r\n\r\n").await;
            }
            client.write_all(behind.as_bytes()).await.unwrap();
            until_watched(&server).await;
            drop(client);
            eventually(|| server.member.watchers() == 0).await;
        }
    }
}

#[tokio::test]
async fn clients_are_held_to_their_time_after_a_wait_too() {
    let idle_timeout = Duration::from_millis(300);
    let header_timeout = Duration::from_millis(200);
    let server = Server::start(ServeConfig { idle_timeout, header_timeout, ..ServeConfig::default() }).await;
    for says in ["", "GET /v2/"] {
        let mut client = server.connect().await;
        client.write_all(wait_request("/v2/keys/k?wait=true").as_bytes()).await.unwrap();
        until_watched(&server).await;
        // A wait may last.
        tokio::time::sleep(idle_timeout * 2).await;
        assert_eq!(server.member.watchers(), 1);
        server.send("PUT", "/v2/keys/k", "value=1").await;
        until(&mut client, END).await;
        client.write_all(says.as_bytes()).await.unwrap();
        let started = Instant::now();
        assert_eq!(rest(&mut client).await, "");
        assert!(started.elapsed() >= header_timeout / 2 && started.elapsed() < PATIENCE / 2);
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_a_stream_is_cut_off() {
    let write_stall_timeout = Duration::from_millis(300);
    let server = Server::start(ServeConfig { write_stall_timeout, ..ServeConfig::default() }).await;
    let mut client = server.connect().await;
    client.write_all(wait_request("/v2/keys/k?wait=true&stream=true").as_bytes()).await.unwrap();
    let mut byte = [0];
    client.read_exact(&mut byte).await.unwrap();
    let value = format!("value={}", "z".repeat(500_000));
    let started = Instant::now();
    while server.member.watchers() > 0 {
        assert!(started.elapsed() < PATIENCE, "it holds on to the client");
        server.send("PUT", "/v2/keys/k", &value).await;
    }
}

#[tokio::test]
async fn a_wait_that_is_over_counts_no_longer_while_its_connection_stays() {
    let server = Server::start(ServeConfig::default()).await;
    server.send("PUT", "/v2/keys/k", "value=1").await;
    let mut client = server.connect().await;
    // Told at once, and told later.
    for (target, first) in [("/v2/keys/k?wait=true&waitIndex=1", true), ("/v2/keys/k?wait=true", false)] {
        client.write_all(wait_request(target).as_bytes()).await.unwrap();
        if !first {
            until_watched(&server).await;
            server.send("PUT", "/v2/keys/k", "value=2").await;
        }
        until(&mut client, END).await;
        let started = Instant::now();
        while !server.get("/v2/stats/store").await.contains("\"watchers\":0}") {
            assert!(started.elapsed() < PATIENCE, "{target} is still counted");
        }
    }
}
