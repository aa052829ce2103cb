use super::*;
use KeysMethod::{Delete, Get, Head, Post, Put};
use proptest::prelude::*;

const ALL: [KeysMethod; 5] = [Get, Head, Put, Post, Delete];

fn key() -> Key {
    Key::parse(b"/k")
}

fn read(method: KeysMethod, query: &str, form: &str) -> Result<KeysRequest, StoreError> {
    parse(method, key(), query, &Bytes::copy_from_slice(form.as_bytes()))
}

fn command_of(method: KeysMethod, query: &str, form: &str) -> Command {
    match read(method, query, form) {
        Ok(KeysRequest::Write { command, .. }) => command,
        other => panic!("{query} {form}: {other:?}"),
    }
}

/// Numbers and causes are those of etcd 3.4.23.
#[test]
fn invalid_parameters() {
    for (query, code, cause) in [
        ("prevIndex=x", 203, "invalid value for \"prevIndex\""),
        ("prevIndex=", 203, "invalid value for \"prevIndex\""),
        ("prevIndex=%2B5", 203, "invalid value for \"prevIndex\""),
        ("prevIndex=18446744073709551616", 203, "invalid value for \"prevIndex\""),
        ("waitIndex=-1", 203, "invalid value for \"waitIndex\""),
        ("recursive", 209, "invalid value for \"recursive\""),
        ("sorted=yes", 209, "invalid value for \"sorted\""),
        ("wait=", 209, "invalid value for \"wait\""),
        ("dir=2", 209, "invalid value for \"dir\""),
        ("quorum=tRUE", 209, "invalid value for \"quorum\""),
        ("stream=on", 209, "invalid value for \"stream\""),
        ("noValueOnSuccess=x", 209, "invalid value for \"noValueOnSuccess\""),
        ("prevExist=x", 209, "invalid value for prevExist"),
        ("refresh=x", 209, "invalid value for refresh"),
        ("prevValue=", 201, "\"prevValue\" cannot be empty"),
        ("ttl=-1", 202, "invalid value for \"ttl\""),
        ("ttl=1.5", 202, "invalid value for \"ttl\""),
        ("refresh=true&ttl=5&value=5", 211, "A value was provided on a refresh"),
        ("refresh=true", 212, "No TTL value set"),
        ("refresh=true&ttl=", 212, "No TTL value set"),
        ("a=%zz", 210, "invalid URL escape \"%zz\""),
        ("a=b;c", 210, "invalid semicolon separator in query"),
    ] {
        for method in ALL {
            let error = read(method, query, "").expect_err(query);
            let found =
                (error.code.number(), String::from_utf8_lossy(&error.cause).into_owned(), error.index);
            assert_eq!(found, (code, cause.to_owned(), 0), "{query}");
        }
    }
}

#[test]
fn the_first_check_that_fails_is_reported() {
    let in_order = [
        "prevIndex=x",
        "waitIndex=x",
        "recursive=x",
        "sorted=x",
        "wait=x",
        "dir=x",
        "quorum=x",
        "stream=x",
        "prevValue=",
        "noValueOnSuccess=x",
        "ttl=x",
        "prevExist=x",
        "refresh=x",
    ];
    for (at, first) in in_order.iter().enumerate() {
        let mut all = in_order[at..].to_vec();
        all.reverse();
        assert_eq!(read(Put, &all.join("&"), "").expect_err(first), read(Put, first, "").expect_err(first));
    }
}

#[test]
fn wait_is_for_get() {
    for method in [Head, Put, Post, Delete] {
        let error = read(method, "wait=true", "").expect_err("refused");
        assert_eq!(error, refuse(ErrorCode::InvalidField, "\"wait\" can only be used with GET requests"));
        read(method, "wait=false", "").unwrap();
    }
    match read(Get, "wait=1&waitIndex=7&recursive=T&stream=f", "").unwrap() {
        KeysRequest::Wait(wait) => {
            let watch = wait.watch;
            assert_eq!((watch.since, watch.recursive, watch.stream, watch.key), (7, true, false, key()));
            assert_eq!(wait.timeout, None);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn reads_are_linearizable_unless_they_ask_not_to_be() {
    for (query, expected) in [
        ("", Consistency::Linearizable),
        ("quorum=true&wait=true", Consistency::Linearizable),
        ("quorum=false", Consistency::Local),
        ("consistent=false", Consistency::Linearizable),
    ] {
        match read(Get, query, "").unwrap() {
            KeysRequest::Read(read) => {
                assert_eq!((read.consistency, read.recursive), (expected, false), "{query}");
                assert_eq!((read.keys_only, read.page), (false, None));
            }
            other => panic!("{query}: {other:?}"),
        }
    }
    assert!(matches!(read(Get, "quorum=false&wait=true", ""), Ok(KeysRequest::Wait(_))));
}

#[test]
fn put_decides_by_its_conditions() {
    let value = || Bytes::from_static(b"v");
    let compare =
        |prev_value: &'static str, prev_index| Compare { prev_value: prev_value.into(), prev_index };
    let (ttl, refresh, dir) = (None, false, false);
    let swap = |compare| Command::CompareAndSwap { key: key(), compare, value: value(), ttl, refresh };
    let set = Command::Set { key: key(), value: value(), dir, ttl, refresh };
    let update = Command::Update { key: key(), value: value(), ttl, refresh };
    let create = Command::Create { key: key(), value: value(), dir, ttl, refresh };
    for (query, expected) in [
        ("", &set),
        ("prevIndex=0", &set),
        ("prevExist=true", &update),
        ("prevExist=true&prevIndex=0", &update),
        ("prevExist=false", &create),
        ("prevExist=false&prevIndex=5&prevValue=x", &create),
        ("prevIndex=5", &swap(compare("", 5))),
        ("prevValue=x", &swap(compare("x", 0))),
        ("prevExist=true&prevIndex=5&prevValue=x", &swap(compare("x", 5))),
    ] {
        assert_eq!(command_of(Put, query, "value=v"), *expected, "{query}");
    }
}

#[test]
fn post_and_delete() {
    let in_order = Command::CreateInOrder { key: key(), value: "v".into(), dir: true, ttl: Some(5000) };
    assert_eq!(command_of(Post, "prevExist=true&prevIndex=3&dir=true", "value=v&ttl=5"), in_order);
    let compare = Compare { prev_value: Bytes::new(), prev_index: 3 };
    let delete = |dir, recursive| Command::Delete { key: key(), dir, recursive };
    assert_eq!(command_of(Delete, "dir=true&prevExist=false", ""), delete(true, false));
    assert_eq!(command_of(Delete, "recursive=true&prevIndex=0", ""), delete(false, true));
    let compare_and_delete = Command::CompareAndDelete { key: key(), compare };
    assert_eq!(command_of(Delete, "recursive=true&prevIndex=3", ""), compare_and_delete);
}

#[test]
fn the_form_wins_and_the_first_counts() {
    let set = |value: &'static str, ttl| Command::Set {
        key: key(),
        value: value.into(),
        dir: false,
        ttl,
        refresh: false,
    };
    assert_eq!(command_of(Put, "value=query&ttl=1", "value=form&value=second"), set("form", Some(1000)));
    assert_eq!(command_of(Put, "value=query&value=second", ""), set("query", None));
    assert_eq!(command_of(Put, "ttl=5", "ttl="), set("", None));
    assert_eq!(command_of(Put, "ttl=0", ""), set("", Some(0)));
    assert_eq!(command_of(Put, "ttl=18446744073709551615", ""), set("", Some(MAX_TTL_SECONDS * 1000)));
}

#[test]
fn no_value_on_success_is_for_writes_that_have_one() {
    for (method, expected) in [(Put, true), (Post, true), (Delete, false)] {
        match read(method, "noValueOnSuccess=true", "").unwrap() {
            KeysRequest::Write { no_value_on_success, .. } => assert_eq!(no_value_on_success, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn large_values_share_the_memory_of_the_form() {
    let form = Bytes::from(format!("value={}", "x".repeat(100_000)));
    let Ok(KeysRequest::Write { command: Command::Set { value, .. }, .. }) = parse(Put, key(), "", &form)
    else {
        panic!("not a set");
    };
    assert!(form.as_ptr_range().contains(&value.as_ptr()));
    assert_eq!(value, form.slice(6..));
}

fn page_of(query: &str) -> Option<PageRequest> {
    match read(Get, query, "") {
        Ok(KeysRequest::Read(read)) => read.page,
        other => panic!("{query}: {other:?}"),
    }
}

#[test]
fn pages() {
    let page = |start: &str, limit, at| Some(PageRequest { start: Key::parse(start.as_bytes()), limit, at });
    for (query, expected) in [
        ("", None),
        ("atIndex=5", None),
        ("limit=7", page("/k", 7, None)),
        ("limit=7&start=", page("/k", 7, None)),
        ("limit=99999999&start=/k/a%20b", page("/k/a b", 10_000, None)),
        ("start=b/c&atIndex=9", page("/k/b/c", 10_000, Some(9))),
        ("limit=1&start=b/../../k/x", page("/k/x", 1, None)),
    ] {
        assert_eq!(page_of(query), expected, "{query}");
    }
    for query in [
        "limit=0",
        "limit=",
        "limit=-1",
        "limit=x",
        "start=/other",
        "start=../other",
        "start=/",
        "atIndex=x",
        "keysOnly=2",
    ] {
        let code = read(Get, query, "").expect_err(query).code;
        assert!(matches!(code, ErrorCode::InvalidField | ErrorCode::IndexNaN), "{query}");
        read(Put, query, "").unwrap(); // it means nothing there
        read(Get, &format!("wait=true&{query}"), "").unwrap();
    }
    assert!(matches!(
        read(Get, "keysOnly=true", ""),
        Ok(KeysRequest::Read(ReadRequest { keys_only: true, .. }))
    ));
}

#[test]
fn wait_timeouts() {
    let timeout = |query: &str| match read(Get, &format!("wait=true&waitTimeout={query}"), "") {
        Ok(KeysRequest::Wait(wait)) => wait.timeout.unwrap(),
        other => panic!("{query}: {other:?}"),
    };
    for (text, millis) in [
        ("0", 0),
        ("2", 2000),
        ("0.5", 500),
        (".25", 250),
        ("3.", 3000),
        ("999999999999999999999", 86_400_000),
    ] {
        assert_eq!(timeout(text), Duration::from_millis(millis), "{text}");
    }
    for text in ["", "-1", "x", "1e3", "inf", "nan", "+1", "1.2.3", ".", "1s", "%20"] {
        let error = read(Get, &format!("wait=true&waitTimeout={text}"), "").expect_err(text);
        assert_eq!(error, refuse(ErrorCode::InvalidField, "invalid value for \"waitTimeout\""));
        read(Get, &format!("waitTimeout={text}"), "").unwrap();
    }
}

proptest! {
    #[test]
    fn whatever_is_sent(query in ".{0,80}", form in proptest::collection::vec(any::<u8>(), 0..80), method in 0..5usize) {
        _ = parse(ALL[method], key(), &query, &Bytes::from(form));
    }

    #[test]
    fn known_names_with_any_value(
        name in "prevIndex|waitIndex|recursive|wait|dir|quorum|prevValue|ttl|prevExist|refresh|value|waitTimeout|limit|start|atIndex|keysOnly",
        value in "[ -~]{0,20}|[0-9]{1,25}|[0-9.]{1,9}|/k/[ -~]{0,9}",
        method in 0..5usize,
    ) {
        _ = read(ALL[method], &format!("{name}={value}"), "");
        _ = read(ALL[method], &format!("wait=true&{name}={value}"), "");
    }

    /// What is written into a request comes out of it.
    #[test]
    fn a_write_comes_out_as_it_went_in(
        value in proptest::collection::vec(any::<u8>(), 0..40),
        prev_value in proptest::collection::vec(any::<u8>(), 0..8),
        prev_index: u64,
        ttl in proptest::option::of(0..MAX_TTL_SECONDS),
        prev_exist in proptest::option::of(any::<bool>()),
        in_form: [bool; 5],
        dir: bool,
    ) {
        let escaped = |bytes: &[u8]| bytes.iter().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
        let mut pairs = vec![format!("value={}", escaped(&value)), format!("prevIndex={prev_index}")];
        pairs.extend(ttl.map(|ttl| format!("ttl={ttl}")));
        pairs.extend(prev_exist.map(|prev_exist| format!("prevExist={prev_exist}")));
        if !prev_value.is_empty() {
            pairs.push(format!("prevValue={}", escaped(&prev_value)));
        }
        let (form, query): (Vec<_>, Vec<_>) = pairs.into_iter().zip(in_form).partition(|(_, in_form)| *in_form);
        let join = |pairs: Vec<(String, bool)>| pairs.into_iter().map(|(pair, _)| pair).collect::<Vec<_>>().join("&");
        let query = format!("{}&dir={dir}", join(query));
        let (key, value, ttl, refresh) = (key(), Bytes::from(value), ttl.map(|ttl| ttl * 1000), false);
        let compare = Compare { prev_value: prev_value.into(), prev_index };
        let conditional = prev_index > 0 || !compare.prev_value.is_empty();
        let expected = match prev_exist {
            Some(false) => Command::Create { key, value, dir, ttl, refresh },
            _ if conditional => Command::CompareAndSwap { key, compare, value, ttl, refresh },
            Some(true) => Command::Update { key, value, ttl, refresh },
            None => Command::Set { key, value, dir, ttl, refresh },
        };
        prop_assert_eq!(command_of(Put, &query, &join(form)), expected);
    }
}
