//! PTX text to a `Module`.

mod body;
pub(crate) mod cursor;
mod entry;
pub(crate) mod error;
mod lexer;
pub(crate) mod symbols;
mod variables;

pub use error::ParseError;

use cursor::Cursor;
use lexer::Kind;

use crate::module::Module;
use entry::Head;
use variables::ModuleScope;

/// Loads a text.
pub(crate) fn module(source: &str) -> Result<Module, ParseError> {
    let mut cursor = Cursor::new(lexer::tokens(source)?);
    let lines: Vec<&str> = source.lines().collect();
    let mut module = Module {
        version: (0, 0),
        target: String::new(),
        variables: Vec::new(),
        entries: Vec::new(),
    };
    let mut scope = ModuleScope::default();
    while cursor.peek().is_some() {
        let mut external = false;
        while [".visible", ".weak", ".common"]
            .iter()
            .any(|word| cursor.skip_word(word))
        {}
        external |= cursor.skip_word(".extern");
        match cursor.peek() {
            Some(Kind::Word(".version")) => {
                cursor.advance();
                module.version = version(&mut cursor)?;
            }
            Some(Kind::Word(".target")) => {
                cursor.advance();
                module.target = cursor.word()?.to_owned();
                while cursor.skip(',') {
                    cursor.word()?;
                }
            }
            Some(Kind::Word(".address_size")) => {
                cursor.advance();
                if cursor.integer()? != 64 {
                    return Err(cursor.error("only programs with addresses of 64 bits are known"));
                }
            }
            Some(Kind::Word(".global" | ".const" | ".shared")) => {
                scope.variable(&mut cursor, external, &mut module.variables)?
            }
            Some(Kind::Word(".func")) if external => {
                // A declaration alone does nothing; a call is refused where it stands.
                while !cursor.skip(';') {
                    if cursor.advance().is_none() {
                        return Err(cursor.error("the declaration has no end"));
                    }
                }
            }
            Some(Kind::Word(".entry")) => {
                cursor.advance();
                let head = Head::read(&mut cursor)?;
                module
                    .entries
                    .push(body::entry(&mut cursor, head, &scope, &lines)?);
            }
            Some(Kind::Word(".pragma")) => {
                cursor.advance();
                cursor.advance();
                cursor.expect(';')?;
            }
            Some(Kind::Word(".func")) => {
                return Err(cursor.error("functions that are not inlined are not supported"));
            }
            _ => return Err(cursor.error("this directive is not known")),
        }
    }
    if module.version == (0, 0) {
        return Err(ParseError::new(
            1,
            lines.first().unwrap_or(&""),
            "the text has no .version",
        ));
    }
    Ok(module)
}

/// `8.0`, which the lexer gives as one word.
fn version(cursor: &mut Cursor<'_>) -> Result<(u32, u32), ParseError> {
    let error = cursor.error("a version such as 8.0 is expected");
    let (major, minor) = cursor.word()?.split_once('.').ok_or(error.clone())?;
    match (major.parse(), minor.parse()) {
        (Ok(major), Ok(minor)) => Ok((major, minor)),
        _ => Err(error),
    }
}
