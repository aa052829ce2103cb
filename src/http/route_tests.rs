use super::*;
use proptest::prelude::*;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn get(path: &str) -> Result<Route, Refusal> {
    route(&Method::GET, path, None)
}

#[expect(clippy::unnecessary_wraps)] // as `route` answers
fn key(path: &str) -> Result<Route, Refusal> {
    Ok(Route::Keys(Key::parse(path.as_bytes())))
}

#[test]
fn keys() {
    for (path, expected) in [
        ("/v2/keys", "/"),
        ("/v2/keys/", "/"),
        ("/v2/keys/a", "/a"),
        ("/v2/keys/a/", "/a"),
        ("/v2/keys/n%2Fx", "/n/x"),
        ("/v2/keys/a+b%20c%25%3F", "/a+b c%?"),
        ("/v2/keys/_hidden/...", "/_hidden/..."),
        ("/v2/keys/%0a", "/\n"),
    ] {
        assert_eq!(get(path), key(expected), "{path}");
    }
    assert_eq!(get("/v2/keys/%ff"), Ok(Route::Keys(Key::parse(b"/\xff"))));
}

#[test]
fn the_rest() {
    use MembersRoute::{Change, ChangeAll, Leader, List, Unknown};
    for (method, path, expected) in [
        (Method::GET, "/v2/members", Route::Members(List)),
        (Method::GET, "/v2/members/", Route::Members(List)),
        (Method::GET, "/v2/members/leader", Route::Members(Leader)),
        (Method::GET, "/v2/members/leader/", Route::Members(Unknown)),
        (Method::POST, "/v2/members", Route::Members(Change)),
        (Method::DELETE, "/v2/members/ab", Route::Members(Change)),
        (Method::DELETE, "/v2/members/", Route::Members(ChangeAll)),
        (Method::HEAD, "/v2/machines", Route::Machines),
        (Method::GET, "/v2/stats/store", Route::StatsStore),
        (Method::GET, "/v2/stats/self", Route::StatsSelf),
        (Method::GET, "/v2/stats/leader", Route::StatsLeader),
        (Method::GET, "/version", Route::Version),
        (Method::GET, "/health", Route::Health),
        (Method::PATCH, "/metrics", Route::Metrics),
        (Method::GET, "/debug/vars", Route::DebugVars),
        (Method::PUT, "/new", Route::NewToken),
        (Method::HEAD, "/v2/leader", Route::Leader),
        (Method::GET, "/v2/admin/config", Route::Admin(AdminRoute::Config)),
        (Method::PUT, "/v2/admin/config", Route::Admin(AdminRoute::ChangeConfig)),
        (Method::GET, "/v2/admin/machines/", Route::Admin(AdminRoute::Machines)),
        (Method::GET, "/v2/admin/machines/a%2Fb", Route::Admin(AdminRoute::Machine(b"a/b".to_vec()))),
        (Method::DELETE, "/v2/admin/machines/a", Route::Admin(AdminRoute::Remove(b"a".to_vec()))),
    ] {
        assert_eq!(route(&method, path, None), Ok(expected), "{method} {path}");
    }
}

#[test]
fn unknown_paths() {
    for path in [
        "/",
        "/v2",
        "/v2/keysfoo",
        "/v2/machines/",
        "/v2/stats/",
        "/v2/membersx",
        "/v2/leader/",
        "/v2/admin",
        "/nope",
    ] {
        assert_eq!(get(path), Err(Refusal::NotFound), "{path}");
    }
}

#[test]
fn methods() {
    for (method, path, allowed) in [
        (Method::PATCH, "/v2/keys/a", "HEAD,GET,PUT,POST,DELETE"),
        (Method::HEAD, "/v2/members", "GET,POST,DELETE,PUT"),
        (Method::POST, "/v2/machines", "GET,HEAD"),
        (Method::HEAD, "/health", "GET"),
        (Method::HEAD, "/v2/stats/store", "GET"),
        (Method::POST, "/version", "GET"),
        (Method::HEAD, "/debug/vars", "GET"),
        (Method::DELETE, "/v2/admin/machines", "GET"),
    ] {
        assert_eq!(route(&method, path, None), Err(Refusal::NotAllowed(allowed)), "{method} {path}");
    }
    for path in ["/v2/keys", "/nope", "*", "//"] {
        assert_eq!(route(&Method::OPTIONS, path, None), Err(Refusal::Options), "{path}");
    }
}

/// The locations are those of etcd 3.4.23.
#[test]
fn unclean_paths_are_redirected() {
    for (path, query, expected) in [
        ("/v2/keys//x", Some("a=b"), "/v2/keys/x?a=b"),
        ("/v2/keys//x", Some(""), "/v2/keys/x"),
        ("/v2/keys/a%2f..%2fb%20c", Some("x=y"), "/v2/keys/b%20c?x=y"),
        (
            "/v2/keys/x//%3f%3c%22'%26é%7f%20",
            Some("a='<&%zz"),
            "/v2/keys/x/%3F%3C%22%27&%C3%A9%7F%20?a='<&%zz",
        ),
        ("//v2/keys/../x/./", None, "/v2/x/"),
        ("/v2/keys/..%2f..%2f..%2f0", None, "/0"),
        ("/v2/keys/a//", None, "/v2/keys/a/"),
        ("//", None, "/"),
        ("/..", None, "/"),
    ] {
        assert_eq!(route(&Method::GET, path, query), Err(Refusal::Moved(expected.to_owned())), "{path}");
    }
}

#[test]
fn bad_paths() {
    for path in ["/v2/keys/%zz", "/%", "/%4", "*", ""] {
        assert_eq!(get(path), Err(Refusal::BadPath), "{path}");
    }
}

#[test]
fn discovery_is_a_view_of_the_registry() {
    let below = |rest: &str| key(&format!("/_etcd/registry/{TOKEN}{rest}"));
    assert_eq!(get(&format!("/{TOKEN}")), below(""));
    assert_eq!(get(&format!("/{TOKEN}/")), below(""));
    assert_eq!(route(&Method::PUT, &format!("/{TOKEN}/m1"), None), below("/m1"));
    assert_eq!(route(&Method::DELETE, &format!("/{TOKEN}/m1"), None), below("/m1"));
    assert_eq!(get(&format!("/{TOKEN}/_config/size")), below("/_config/size"));
    assert_eq!(get(&format!("/{TOKEN}/a/b")), Err(Refusal::NotFound));
    assert_eq!(get(&format!("/{TOKEN}0")), Err(Refusal::NotFound));
    assert_eq!(get(&format!("/{}", TOKEN.to_uppercase())), Err(Refusal::NotFound));
    let change_size = route(&Method::PUT, &format!("/{TOKEN}/_config/size"), None);
    assert_eq!(change_size, Err(Refusal::NotAllowed("GET,HEAD")));
}

proptest! {
    /// A key that is routed is clean, and a redirect leads to a path that is not redirected again.
    #[test]
    fn whatever_the_path(path in "(/v2/keys)?(/|[.]|%2f|%2e|%|a|b%20|é){0,12}") {
        match get(&path) {
            Ok(Route::Keys(key)) => prop_assert_eq!(&Key::parse(key.as_bytes()), &key),
            Err(Refusal::Moved(location)) => prop_assert!(!matches!(get(&location), Err(Refusal::Moved(_) | Refusal::BadPath))),
            _ => {}
        }
    }
}
