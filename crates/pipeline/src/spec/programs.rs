//! The stages that run a program of the user: command, python.

use std::path::Path;

use super::fields::{Fields, Names, Spanned};
use super::stage::ProgramStage;
use super::tree::{Node, Value};

/// Part of an argument: `${stage.joined}` or `${stage.joined.csv}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Text(&'a str),
    /// The directory of the stage's table.
    Table(&'a str),
    /// The same rows as one CSV file.
    Csv(&'a str),
}

/// Cuts an argument into text and references to stages.
pub(crate) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${stage.") {
        let Some(length) = rest[start..].find('}') else { break };
        let name = &rest[start + "${stage.".len()..start + length];
        if start > 0 {
            pieces.push(Piece::Text(&rest[..start]));
        }
        pieces.push(name.strip_suffix(".csv").map_or(Piece::Table(name), Piece::Csv));
        rest = &rest[start + length + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

pub(crate) fn command(fields: &Fields) -> ProgramStage {
    let program = fields.required("program", "a path, or the name of a program on the search path");
    ProgramStage { program: Some(program), script: None, arguments: fields.texts("arguments"), env: env(fields), requires: Names::new() }
}

pub(crate) fn python(fields: &Fields, base: &Path) -> ProgramStage {
    let script = fields.paths("script", base).into_iter().next();
    if script.is_none() {
        fields.missing("script", "a Python file, relative to the pipeline file");
    }
    ProgramStage {
        program: fields.string("interpreter"),
        script,
        arguments: fields.texts("arguments"),
        env: env(fields),
        requires: fields.strings("requires"),
    }
}

fn env(fields: &Fields) -> Vec<(String, Spanned<String>)> {
    let Some(env) = fields.table("env") else { return Vec::new() };
    let text = |node: &Node| match &node.value {
        Value::String(text) => text.clone(),
        _ => node.json().to_string(),
    };
    env.table.iter().map(|(name, entry)| (name.clone(), Spanned::new(text(&entry.node), &entry.node.at))).collect()
}

/// The stages that the arguments and the environment name, and those of `after`.
pub(crate) fn inputs(fields: &Fields, stage: &ProgramStage) -> Names {
    let texts = stage.arguments.iter().chain(stage.env.iter().map(|(_, text)| text));
    let mut names = Names::new();
    for text in texts {
        for piece in pieces(&text.value) {
            if let Piece::Table(name) | Piece::Csv(name) = piece {
                names.push(Spanned::new(name.to_owned(), &text.at));
            }
        }
    }
    names.extend(fields.strings("after"));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_stages() {
        let text = "--data=${stage.joined.csv},${stage.a}";
        assert_eq!(pieces(text), [Piece::Text("--data="), Piece::Csv("joined"), Piece::Text(","), Piece::Table("a")]);
        assert_eq!(pieces("plain"), [Piece::Text("plain")]);
        assert!(pieces("").is_empty());
    }
}
