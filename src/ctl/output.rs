//! The three output formats, byte for byte those of etcd's tool.

use super::failure::note;
use crate::client::{Node, Response};
use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};
use std::io::{self, Write};

/// Prints a response in the named format: `simple`, `extended` or `json`. Another name is only complained about on
/// stderr: by then the request has been carried out.
pub(super) fn print(out: &mut impl Write, response: &Response, format: &str) -> io::Result<()> {
    match format {
        "simple" => simple(out, response),
        "extended" => extended(out, response),
        "json" => json(out, response),
        other => {
            note(format_args!("Unsupported output format: {other}"));
            Ok(())
        }
    }
}

/// As [`print`], but a directory is only worth printing in the formats that show more than a value.
pub(super) fn print_unless_silent(out: &mut impl Write, response: &Response, format: &str) -> io::Result<()> {
    if response.node.dir && format == "simple" { Ok(()) } else { print(out, response, format) }
}

fn value(node: &Node) -> &str {
    node.value.as_deref().unwrap_or("")
}

fn simple(out: &mut impl Write, response: &Response) -> io::Result<()> {
    match &response.prev_node {
        Some(prev) if response.action == "delete" => writeln!(out, "PrevNode.Value: {}", value(prev)),
        _ => writeln!(out, "{}", value(&response.node)),
    }
}

fn extended(out: &mut impl Write, response: &Response) -> io::Result<()> {
    let node = &response.node;
    writeln!(out, "Key: {}", node.key)?;
    writeln!(out, "Created-Index: {}", node.created_index)?;
    writeln!(out, "Modified-Index: {}", node.modified_index)?;
    if let Some(prev) = &response.prev_node {
        writeln!(out, "PrevNode.Value: {}", value(prev))?;
    }
    writeln!(out, "TTL: {}", node.ttl.unwrap_or(0))?;
    writeln!(out, "Index: {}", response.etcd_index)?;
    if response.action != "delete" {
        writeln!(out, "\n{}", value(node))?;
    }
    Ok(())
}

fn json(out: &mut impl Write, response: &Response) -> io::Result<()> {
    let shown = ShownResponse {
        action: &response.action,
        node: ShownNode::from(&response.node),
        prev_node: response.prev_node.as_ref().map(ShownNode::from),
    };
    shown.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, GoJson))?;
    writeln!(out)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownResponse<'a> {
    action: &'a str,
    node: ShownNode<'a>,
    prev_node: Option<ShownNode<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownNode<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    dir: bool,
    value: &'a str,
    /// `null`, not `[]`, when there are none.
    nodes: Option<Vec<ShownNode<'a>>>,
    created_index: u64,
    modified_index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    ttl: i64,
}

impl<'a> From<&'a Node> for ShownNode<'a> {
    fn from(node: &'a Node) -> Self {
        Self {
            key: &node.key,
            dir: node.dir,
            value: value(node),
            nodes: (!node.nodes.is_empty()).then(|| node.nodes.iter().map(Self::from).collect()),
            created_index: node.created_index,
            modified_index: node.modified_index,
            expiration: node.expiration.as_deref(),
            ttl: node.ttl.unwrap_or(0),
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_false(value: &bool) -> bool {
    !value
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Escapes what Go's encoder escapes: `<`, `>`, `&` and the two Unicode line separators, so that the text may stand in
/// HTML and JavaScript; and the control characters, without the short forms of backspace and form feed.
struct GoJson;

impl Formatter for GoJson {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, special) = rest.split_at(at);
            let Some(c) = special.chars().next() else { break };
            write!(out, "{plain}\\u{:04x}", u32::from(c))?;
            rest = &special[c.len_utf8()..];
        }
        out.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, out: &mut W, escape: CharEscape) -> io::Result<()> {
        match escape {
            CharEscape::Backspace => out.write_all(b"\\u0008"),
            CharEscape::FormFeed => out.write_all(b"\\u000c"),
            other => CompactFormatter.write_char_escape(out, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(key: &str, value: Option<&str>) -> Node {
        Node {
            key: key.to_owned(),
            value: value.map(str::to_owned),
            dir: value.is_none(),
            created_index: 5,
            modified_index: 7,
            ..Node::default()
        }
    }

    fn response(action: &str, node: Node, prev_node: Option<Node>) -> Response {
        Response { action: action.to_owned(), node, prev_node, etcd_index: 9, ..Response::default() }
    }

    fn shown(response: &Response, format: &str) -> String {
        let mut out = Vec::new();
        print(&mut out, response, format).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn simple_shows_the_value_or_what_was_there() {
        let set = response("set", node("/a", Some("1")), Some(node("/a", Some("0"))));
        assert_eq!(shown(&set, "simple"), "1\n");
        let removed = Node { dir: false, ..node("/a", None) };
        let delete = response("delete", removed.clone(), Some(node("/a", Some("0"))));
        assert_eq!(shown(&delete, "simple"), "PrevNode.Value: 0\n");
        let compared = response("compareAndDelete", removed, Some(node("/a", Some("0"))));
        assert_eq!(shown(&compared, "simple"), "\n");
    }

    #[test]
    fn extended_shows_one_fact_a_line() {
        let mut set = response("set", node("/a", Some("1")), Some(node("/a", Some("0"))));
        set.node.ttl = Some(60);
        let head = "Key: /a\nCreated-Index: 5\nModified-Index: 7\nPrevNode.Value: 0\nTTL: 60\nIndex: 9\n";
        assert_eq!(shown(&set, "extended"), format!("{head}\n1\n"));
        set.action = "delete".to_owned();
        assert_eq!(shown(&set, "extended"), head);
    }

    #[test]
    fn json_keeps_the_order_the_nulls_and_the_escapes() {
        let mut set = response("set", node("/ü", Some("<a>&\u{8}\u{c}\n\u{1}\u{2028}\"\\ä")), None);
        set.node.expiration = Some("2026-11-22T05:59:26.75Z".to_owned());
        set.node.ttl = Some(60);
        assert_eq!(
            shown(&set, "json"),
            "{\"action\":\"set\",\"node\":{\"key\":\"/ü\",\
             \"value\":\"\\u003ca\\u003e\\u0026\\u0008\\u000c\\n\\u0001\\u2028\\\"\\\\ä\",\"nodes\":null,\
             \"createdIndex\":5,\"modifiedIndex\":7,\"expiration\":\"2026-11-22T05:59:26.75Z\",\"ttl\":60},\
             \"prevNode\":null}\n"
        );
        let mut list = response("get", node("", None), None);
        list.node.nodes = vec![node("/d", None)];
        assert_eq!(
            shown(&list, "json"),
            "{\"action\":\"get\",\"node\":{\"key\":\"\",\"dir\":true,\"value\":\"\",\"nodes\":[{\"key\":\"/d\",\
             \"dir\":true,\"value\":\"\",\"nodes\":null,\"createdIndex\":5,\"modifiedIndex\":7}],\
             \"createdIndex\":5,\"modifiedIndex\":7},\"prevNode\":null}\n"
        );
    }

    #[test]
    fn a_directory_is_silent_only_in_the_simple_format() {
        let made = response("create", node("/d", None), None);
        for (format, bytes) in [("simple", false), ("json", true), ("extended", true)] {
            let mut out = Vec::new();
            print_unless_silent(&mut out, &made, format).unwrap();
            assert_eq!(!out.is_empty(), bytes, "{format}");
        }
    }
}
