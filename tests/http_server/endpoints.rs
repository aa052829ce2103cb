//! The endpoints besides `/v2/keys`.

use super::{Server, body, status};
use quorate::http::ServeConfig;
use quorate::http::backend::{Appends, PeerTraffic, Traffic};
use std::collections::BTreeMap;
use std::time::Duration;

async fn server() -> Server {
    Server::start(ServeConfig::default()).await
}

#[tokio::test]
async fn leaders_and_machines_of_etcd_0_4() {
    let server = server().await;
    let url = format!("http://{}", server.address);
    let leader = server.get("/v2/leader").await;
    assert_eq!((status(&leader), body(&leader)), ("200", "http://127.0.0.1:7001"));
    assert!(leader.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"));
    let machine = |state: &str| {
        format!(r#"{{"name":"m1","state":"{state}","clientURL":"{url}","peerURL":"http://127.0.0.1:7001"}}"#)
    };
    assert_eq!(body(&server.get("/v2/admin/machines").await), format!("[{}]", machine("leader")));
    assert_eq!(body(&server.get("/v2/admin/machines/m%31").await), machine("leader"));
    assert_eq!(body(&server.get("/v2/admin/machines/m2").await), "null");
    let alone = server.send("DELETE", "/v2/admin/machines/m1", "").await;
    assert_eq!(status(&alone), "409", "{}", body(&alone));
    let nobody = server.send("DELETE", "/v2/admin/machines/m2", "").await;
    assert_eq!((status(&nobody), body(&nobody)), ("200", ""));
    server.member.set_leader(0);
    server.send("PUT", "/v2/keys/k", "value=1").await;
    let none = server.get("/v2/leader").await;
    let expected = "{\"errorCode\":301,\"message\":\"During Leader Election\",\"index\":1}\n";
    assert_eq!((status(&none), body(&none)), ("500", expected));
    assert_eq!(body(&server.get("/v2/admin/machines/m1").await), machine("follower"));
    for (method, path) in
        [("PUT", "/v2/leader"), ("POST", "/v2/admin/config"), ("HEAD", "/v2/admin/machines")]
    {
        assert_eq!(status(&server.send(method, path, "").await), "405", "{method} {path}");
    }
}

#[tokio::test]
async fn the_configuration_of_etcd_0_4_cannot_be_changed_without_effect() {
    let server = server().await;
    let config = "{\"activeSize\":1,\"removeDelay\":1800,\"syncInterval\":5}\n";
    assert_eq!(body(&server.get("/v2/admin/config").await), config);
    for same in ["{}", "{\"activeSize\":1}", "{\"removeDelay\":1800.0,\"syncInterval\":5,\"other\":1}"] {
        let answer = server.send("PUT", "/v2/admin/config", same).await;
        assert_eq!((status(&answer), body(&answer)), ("200", config), "{same}");
    }
    for other in ["{\"activeSize\":3}", "{\"removeDelay\":5}", "{\"syncInterval\":1}"] {
        let answer = server.send("PUT", "/v2/admin/config", other).await;
        assert_eq!(status(&answer), "501", "{other}");
        assert!(body(&answer).contains("/v2/members"));
    }
    for bad in ["", "{", "[]x", "{\"activeSize\":\"3\"}"] {
        let answer = server.send("PUT", "/v2/admin/config", bad).await;
        assert_eq!((status(&answer), body(&answer)), ("400", r#"{"message":"Invalid json body"}"#), "{bad}");
    }
    assert_eq!(body(&server.get("/v2/admin/config").await), config);
}

#[tokio::test]
async fn stats_of_the_traffic_between_members() {
    let server = server().await;
    let micros = Duration::from_micros;
    let reached = PeerTraffic {
        connected: true,
        receipts: 4,
        latency: [micros(1500), micros(2000), micros(250), micros(1000), micros(3000)],
        failures: 2,
        ..PeerTraffic::default()
    };
    server.member.set_traffic(Traffic {
        peers: BTreeMap::from([(0xa, reached), (0xb, PeerTraffic::default())]),
        received: Appends { count: 7, per_second: 2.5, bytes_per_second: 80.0 },
        sent: Appends { count: 9, ..Appends::default() },
    });
    let expected = concat!(
        r#"{"leader":"99c4081ed0ff5f2e","followers":{"a":{"latency":{"current":1.5,"average":2,"standardDeviation":0.25,"#,
        r#""minimum":1,"maximum":3},"counts":{"fail":2,"success":4}},"b":{"latency":{"current":0,"average":0,"#,
        r#""standardDeviation":0,"minimum":9223372036854776000,"maximum":0},"counts":{"fail":0,"success":0}}}}"#
    );
    assert_eq!(body(&server.get("/v2/stats/leader").await), expected);
    let stats = server.get("/v2/stats/self").await;
    let end =
        r#""},"recvAppendRequestCnt":7,"recvPkgRate":2.5,"recvBandwidthRate":80,"sendAppendRequestCnt":9}"#;
    assert!(stats.ends_with(end), "{stats}");
    serde_json::from_str::<serde_json::Value>(body(&stats)).unwrap();
    server.member.set_leader(7);
    let follower = server.get("/v2/stats/leader").await;
    assert_eq!((status(&follower), body(&follower)), ("403", r#"{"message":"not current leader"}"#));
}

#[tokio::test]
async fn metrics_and_vars_are_those_of_what_happened() {
    let server = server().await;
    server.send("PUT", "/v2/keys/k", "value=1").await;
    server.get("/v2/keys/k").await;
    server.get("/v2/keys/k?quorum=false").await;
    server.get("/v2/keys/none").await;
    let answer = server.get("/metrics").await;
    assert!(answer.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    let metrics = body(&answer);
    for line in [
        "etcd_server_has_leader 1",
        "quorate_store_nodes 1",
        r#"etcd_http_received_total{method="QGET"} 2"#,
        r#"etcd_http_received_total{method="GET"} 1"#,
        r#"etcd_http_failed_total{code="404",method="QGET"} 1"#,
        r#"etcd_http_successful_duration_seconds_bucket{method="PUT",le="+Inf"} 1"#,
        r#"etcd_http_successful_duration_seconds_count{method="QGET"} 1"#,
        r#"etcd_debugging_store_writes_total{action="set"} 1"#,
        r#"etcd_server_id{server_id="99c4081ed0ff5f2e"} 1"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    for line in metrics.lines() {
        let is_sample = || line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok());
        assert!(line.starts_with("# ") || is_sample(), "{line}");
    }
    let vars: serde_json::Value = serde_json::from_str(body(&server.get("/debug/vars").await)).unwrap();
    assert!(
        vars["file_descriptor_limit"].as_u64().unwrap() > 0
            && vars["memstats"]["Alloc"].as_u64().unwrap() > 0
    );
    assert_eq!(vars["raft.status"]["raftState"], "StateLeader");
    assert_eq!(status(&server.send("POST", "/debug/vars", "").await), "405");
}
