//! Variables of a module: global, constant and shared.

use std::collections::HashMap;

use crate::module::Variable;
use crate::parse::cursor::{Cursor, literal};
use crate::parse::error::ParseError;
use crate::parse::lexer::Kind;
use crate::types::Type;

/// The most bytes of a variable, and of all variables of a module.
const MOST_BYTES: usize = 1 << 28;

/// A declaration such as `.shared .align 16 .b8 tile[512]`.
pub(crate) struct Declared<'a> {
    pub(crate) name: &'a str,
    pub(crate) ty: Type,
    pub(crate) align: usize,
    /// `None` for `[]`.
    pub(crate) size: Option<usize>,
}

/// Reads a declaration after its space, up to the initializer or the end.
pub(crate) fn declared<'a>(cursor: &mut Cursor<'a>) -> Result<Declared<'a>, ParseError> {
    let mut align = None;
    let ty = loop {
        match cursor.word()? {
            ".align" => align = Some(alignment(cursor)?),
            ".attribute" | ".ptr" => {
                return Err(cursor.error("attributes of variables are not known"));
            }
            word => match word.strip_prefix('.').and_then(Type::from_name) {
                Some(ty) => break ty,
                None => return Err(cursor.error(format!("`{word}` is no type"))),
            },
        }
    };
    let name = cursor.word()?;
    let mut size = Some(ty.size());
    while cursor.skip('[') {
        if cursor.skip(']') {
            size = None;
            continue;
        }
        let length = cursor.integer()?;
        let length = usize::try_from(length).ok();
        size = size
            .zip(length)
            .and_then(|(size, length)| size.checked_mul(length))
            .filter(|size| *size <= MOST_BYTES);
        if size.is_none() {
            return Err(cursor.error("the array is too large"));
        }
        cursor.expect(']')?;
    }
    Ok(Declared {
        name,
        ty,
        align: align.unwrap_or(ty.size()),
        size,
    })
}

fn alignment(cursor: &mut Cursor<'_>) -> Result<usize, ParseError> {
    let error = cursor.error("an alignment is a power of two");
    let align = usize::try_from(cursor.integer()?).ok();
    align
        .filter(|a| a.is_power_of_two() && *a <= 4096)
        .ok_or(error)
}

/// Where a variable lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Home {
    /// Its index among the variables of the module.
    Variable(u32),
    /// Its place in shared memory, and its size if that is not dynamic. Kernels that do not name it do not hold it.
    Shared { align: usize, size: Option<usize> },
}

/// The names that all kernels of a module see.
#[derive(Debug, Default)]
pub(crate) struct ModuleScope {
    names: HashMap<String, Home>,
}

impl ModuleScope {
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, Home)> {
        self.names.iter().map(|(name, home)| (name.as_str(), *home))
    }

    /// Reads one declaration, from its space to its semicolon.
    pub(crate) fn variable(
        &mut self,
        cursor: &mut Cursor<'_>,
        external: bool,
        variables: &mut Vec<Variable>,
    ) -> Result<(), ParseError> {
        let space = cursor.word()?;
        let declared = declared(cursor)?;
        let home = if space == ".shared" {
            Home::Shared {
                align: declared.align,
                size: declared.size,
            }
        } else {
            if external {
                return Err(cursor.error("a variable of another module cannot be linked"));
            }
            let Some(size) = declared.size else {
                return Err(cursor.error("the variable has no size"));
            };
            let others: usize = variables.iter().map(|v| v.size).sum();
            if size > MOST_BYTES - others {
                return Err(cursor.error("the variables of the module are too large"));
            }
            let mut initial = vec![0; size];
            if cursor.skip('=') {
                initializer(cursor, declared.ty, &mut initial)?;
            }
            variables.push(Variable {
                name: declared.name.to_owned(),
                size,
                align: declared.align,
                constant: space == ".const",
                initial,
            });
            Home::Variable(variables.len() as u32 - 1)
        };
        self.names.insert(declared.name.to_owned(), home);
        cursor.expect(';')
    }
}

/// `= 7` or `= {1, 2, {3, 4}}`: nested braces are only for the reader.
fn initializer(cursor: &mut Cursor<'_>, ty: Type, bytes: &mut [u8]) -> Result<(), ParseError> {
    let (mut at, mut depth) = (0, 0);
    loop {
        if cursor.skip('{') {
            depth += 1;
        } else if cursor.skip('}') {
            depth -= 1;
        } else if !cursor.skip(',') {
            let negative = cursor.skip('-');
            let error =
                cursor.error("a number is expected; addresses of variables are not supported here");
            let value = literal(cursor.word()?, negative).ok_or(error)?;
            let full = cursor.error("the initializer is longer than the variable");
            let place = bytes.get_mut(at..at + ty.size()).ok_or(full)?;
            place.copy_from_slice(&value.to_le_bytes()[..ty.size()]);
            at += ty.size();
        }
        if depth == 0 || cursor.peek() == Some(Kind::Mark(';')) {
            return Ok(());
        }
    }
}
