//! `xdit-cli man`: the man pages of the program and of its commands.

use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use xdit_models::quote;

use crate::args::argv;
use crate::args::cli::ManArgs;
use crate::args::notes::{ENVIRONMENT, EXIT_CODES};
use crate::output::partial::{Existing, PartialFile, Partials};
use crate::report::console;
use crate::report::failure::Failure;
use crate::run::session::Session;

/// Prints one page, or writes all pages into a folder.
///
/// # Errors
/// [`Failure::Usage`] for a command that does not exist, [`Failure::Output`] if a page cannot be written,
/// [`Failure::Stdout`] if the reader of standard output has closed it.
pub(crate) fn run(args: &ManArgs, session: &Session) -> Result<u8, Failure> {
    let mut program = argv::command();
    program.build();
    if let Some(folder) = &args.output_dir {
        write_all(&program, folder, &session.partials)?;
        return Ok(0);
    }
    let command = match &args.page {
        Some(name) => find(&program, name)?,
        None => &program,
    };
    console::print_as_is(page(command, &program)?.1.as_bytes())?;
    Ok(0)
}

fn find<'a>(program: &'a Command, name: &str) -> Result<&'a Command, Failure> {
    program.find_subcommand(name).ok_or_else(|| {
        let names: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
        let (name, names) = (quote::name(name), names.join(", "));
        Failure::usage(format!(
            "man {name}: no such command; the commands are {names}"
        ))
    })
}

fn write_all(program: &Command, folder: &Path, partials: &Partials) -> Result<(), Failure> {
    partials.make_folder(folder)?;
    for command in std::iter::once(program).chain(program.get_subcommands()) {
        let (name, text) = page(command, program)?;
        let file = folder.join(name);
        let mut partial = PartialFile::create(&file, partials)?;
        let written = partial.file().write_all(text.as_bytes());
        written.map_err(|error| Failure::unwritable(&file, &error))?;
        partial.commit(Existing::Replace)?;
    }
    Ok(())
}

/// Returns the file name and the text of the page of `command`, which is `program` or one of its commands.
fn page(command: &Command, program: &Command) -> Result<(String, String), Failure> {
    let version = program.get_version().unwrap_or_default();
    let man = Man::new(command.clone());
    let name = man.get_filename();
    let title = name.trim_end_matches(".1").to_uppercase();
    // The version dates the page: a day would go stale, or differ from build to build.
    // Text is neither justified nor hyphenated, so that flags stay whole.
    let title =
        format!(".TH {title} 1 \"\" \"xdit-cli {version}\" \"xdit-cli manual\"\n.nh\n.ad l\n");
    let text = render(&man, command, program).map_err(Failure::Stdout)?;
    Ok((name, title + &text))
}

fn render(man: &Man, command: &Command, program: &Command) -> io::Result<String> {
    let mut page = Vec::new();
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    let mut options = Vec::new();
    man.render_options_section(&mut options)?;
    // The headings of flags are parts of one section.
    let options = String::from_utf8_lossy(&options).replace(".SH ", ".SS ");
    let mut text = String::from_utf8_lossy(&page).into_owned();
    text += ".SH OPTIONS\n";
    text += &options.replace(".SS OPTIONS\n", "");
    if command.has_subcommands() {
        let mut commands = Vec::new();
        man.render_subcommands_section(&mut commands)?;
        text += &String::from_utf8_lossy(&commands).replace(".SH SUBCOMMANDS", ".SH COMMANDS");
    }
    let mut rest = Roff::new();
    notes(&mut rest, command);
    definitions(
        &mut rest,
        "EXIT STATUS",
        EXIT_CODES.map(|(code, meaning)| (code.to_string(), meaning)),
    );
    definitions(
        &mut rest,
        "ENVIRONMENT",
        ENVIRONMENT.map(|(names, meaning)| (names.to_owned(), meaning)),
    );
    see_also(&mut rest, command, program);
    Ok(text + &rest.to_roff())
}

/// The notes below the flags of `--help`: each block with a title is a section. The notes of the program are other sections of
/// its page.
fn notes(page: &mut Roff, command: &Command) {
    if command.has_subcommands() {
        return;
    }
    let notes = command.get_after_long_help().or(command.get_after_help());
    let notes = notes.map(ToString::to_string).unwrap_or_default();
    for block in notes.split("\n\n") {
        let (title, body) = match block.split_once(":\n") {
            // The section EXIT STATUS has them all.
            Some(("Exit codes", _)) => continue,
            Some((title, body)) if !title.contains('\n') => (title.to_uppercase(), body),
            _ => ("NOTES".to_owned(), block),
        };
        page.control("SH", [title.as_str()]);
        let is_listing = title.starts_with("EXAMPLE") || body.contains("   ");
        if is_listing {
            page.control("nf", []);
        }
        for line in body.lines() {
            let line = if is_listing {
                line.strip_prefix("  ").unwrap_or(line)
            } else {
                line.trim()
            };
            page.text([roman(line)]);
        }
        if is_listing {
            page.control("fi", []);
        }
    }
}

/// A section of names and what they mean.
fn definitions<const N: usize>(page: &mut Roff, title: &str, rows: [(String, &str); N]) {
    page.control("SH", [title]);
    for (name, meaning) in rows {
        page.control("TP", []);
        page.text([bold(name)]);
        page.text([roman(meaning)]);
    }
}

/// The pages of the other commands, or of the program.
fn see_also(page: &mut Roff, command: &Command, program: &Command) {
    page.control("SH", ["SEE ALSO"]);
    let own = command.get_name();
    let others = program
        .get_subcommands()
        .map(Command::get_name)
        .filter(|name| *name != own);
    let mut names: Vec<String> = others.map(|name| format!("xdit-cli-{name}")).collect();
    if own != program.get_name() {
        names.insert(0, program.get_name().to_owned());
    }
    let last = names.len().saturating_sub(1);
    for (index, name) in names.into_iter().enumerate() {
        let end = if index == last { "(1)" } else { "(1)," };
        page.text([bold(name), roman(end)]);
    }
}
