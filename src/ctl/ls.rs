//! `ls`: the keys in a directory, one full key a line, a directory before what is in it.

use super::app::{Action, Context, QUORUM, Spec};
use super::failure::Failure;
use super::flags::Flag;
use crate::client::{GetOptions, Node};
use std::io::{self, BufWriter, Write};

pub(super) const SPEC: Spec = Spec::new("ls", "retrieve a directory", "[key]", Action::Ls).flags(&[
    Flag::bool(&["sort"], "returns result in sorted order"),
    Flag::bool(&["recursive", "r"], "returns all key names recursively for the given path"),
    Flag::bool(&["p"], "append slash (/) to directories"),
    QUORUM,
]);

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    let key = context.command.args.first().map_or("/", String::as_str);
    let options = GetOptions {
        recursive: context.command.bool("recursive"),
        sorted: context.command.bool("sort"),
        quorum: context.command.given_bool("quorum"),
    };
    let response = context.client().await?.get(key, &options).await?;
    if context.format() != "simple" {
        return context.print(&response);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    list(&mut out, &response.node, context.command.bool("p"))?;
    Ok(out.flush()?)
}

/// A directory's contents, or a key's own name.
fn list(out: &mut impl Write, node: &Node, slash: bool) -> io::Result<()> {
    if !node.dir {
        writeln!(out, "{}", node.key)?;
    }
    // A stack instead of recursion: the depth of the tree is the server's choice.
    let mut pending: Vec<&Node> = node.nodes.iter().rev().collect();
    while let Some(node) = pending.pop() {
        writeln!(out, "{}{}", node.key, if node.dir && slash { "/" } else { "" })?;
        pending.extend(node.nodes.iter().rev());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(key: &str, dir: bool, nodes: Vec<Node>) -> Node {
        Node { key: key.to_owned(), dir, nodes, ..Node::default() }
    }

    #[test]
    fn a_directory_stands_before_what_is_in_it() {
        let root = node(
            "",
            true,
            vec![
                node("/a", false, vec![]),
                node("/d", true, vec![node("/d/e", true, vec![]), node("/d/f", false, vec![])]),
                node("/z", false, vec![]),
            ],
        );
        let mut out = Vec::new();
        list(&mut out, &root, true).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "/a\n/d/\n/d/e/\n/d/f\n/z\n");
        let mut out = Vec::new();
        list(&mut out, &node("/a", false, vec![]), true).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "/a\n");
    }
}
