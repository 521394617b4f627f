//! The head of a kernel: name, parameters and what it says about launches.

use crate::module::Param;
use crate::parse::cursor::Cursor;
use crate::parse::error::ParseError;
use crate::parse::lexer::Kind;
use crate::parse::variables::declared;

/// What stands before the body of a kernel.
pub(crate) struct Head {
    pub(crate) name: String,
    pub(crate) params: Vec<(String, Param)>,
    pub(crate) max_threads: Option<u32>,
    pub(crate) exact_block: Option<[u32; 3]>,
}

impl Head {
    /// Reads from the name to the opening brace of the body.
    pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        let mut head = Self {
            name: cursor.word()?.to_owned(),
            params: Vec::new(),
            max_threads: None,
            exact_block: None,
        };
        if cursor.skip('(') {
            head.read_params(cursor)?;
        }
        while !cursor.skip('{') {
            match cursor.word()? {
                ".maxntid" => {
                    let [x, y, z] = dims(cursor)?;
                    head.max_threads = Some(x.saturating_mul(y).saturating_mul(z));
                }
                ".reqntid" => {
                    let block = dims(cursor)?;
                    head.exact_block = Some(block);
                }
                ".minnctapersm" | ".maxnreg" => {
                    cursor.integer()?;
                }
                ".pragma" => {
                    cursor.advance();
                    cursor.expect(';')?;
                }
                word => {
                    return Err(cursor.error(format!(
                        "`{word}` of the kernel {} is not supported (clusters of blocks are not)",
                        head.name
                    )));
                }
            }
        }
        Ok(head)
    }

    fn read_params(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ParseError> {
        let mut end = 0usize;
        while !cursor.skip(')') {
            if !cursor.skip_word(".param") {
                return Err(cursor.error("`.param` is expected"));
            }
            let param = declared_param(cursor)?;
            let offset = end.next_multiple_of(param.1);
            end = offset + param.2;
            self.params.push((
                param.0,
                Param {
                    offset,
                    size: param.2,
                },
            ));
            cursor.skip(',');
        }
        Ok(())
    }
}

/// The name, alignment and size of a parameter.
fn declared_param(cursor: &mut Cursor<'_>) -> Result<(String, usize, usize), ParseError> {
    // `.param .u64 .ptr .global .align 16 name`: what a pointer points to says nothing about its place.
    if let Some(Kind::Word(".ptr")) = cursor.after(1) {
        let size = cursor
            .word()?
            .strip_prefix('.')
            .and_then(crate::types::Type::from_name);
        let Some(size) = size.map(crate::types::Type::size) else {
            return Err(cursor.error("the parameter has no type"));
        };
        cursor.advance();
        loop {
            match cursor.word()? {
                ".global" | ".shared" | ".local" | ".const" => {}
                ".align" => {
                    cursor.integer()?;
                }
                name => return Ok((name.to_owned(), size, size)),
            }
        }
    }
    let found = declared(cursor)?;
    match found.size {
        Some(size) => Ok((found.name.to_owned(), found.align, size)),
        None => Err(cursor.error("the parameter has no size")),
    }
}

/// Up to three numbers; those that are missing are 1.
fn dims(cursor: &mut Cursor<'_>) -> Result<[u32; 3], ParseError> {
    let mut dims = [1; 3];
    for (i, dim) in dims.iter_mut().enumerate() {
        if i > 0 && !cursor.skip(',') {
            break;
        }
        let error = cursor.error("a number of threads is expected");
        *dim = u32::try_from(cursor.integer()?).map_err(|_| error)?;
    }
    Ok(dims)
}
