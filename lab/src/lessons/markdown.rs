//! The shape of a lesson's file: front matter between two lines `---`, blocks below headings `## …`, fenced code.
//!
//! As much of Markdown as that and no more: what the text between says is for readers.

/// Something that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1 on.
    pub line: usize,
    /// What is wrong, and what to try.
    pub what: String,
}

/// A piece of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// Paragraphs and lists.
    Text(usize, String),
    /// Fenced code: the line of its first line, the words behind the fence, what is in it.
    Code(usize, &'t str, String),
}

/// A block: the line of its heading, the heading, what is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section<'t> {
    pub(super) line: usize,
    pub(super) heading: &'t str,
    pub(super) pieces: Vec<Piece<'t>>,
}

/// A file in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document<'t> {
    /// What stands between the lines `---`; its first line is line 2.
    pub(super) front: String,
    pub(super) sections: Vec<Section<'t>>,
}

/// Takes a file apart; else the line and what is wrong there.
pub(super) fn read(text: &str) -> Result<Document<'_>, (usize, String)> {
    let mut lines = text.lines().zip(1..).peekable();
    if lines.next().is_none_or(|(line, _)| line != "---") {
        return Err((1, "a lesson begins with a line --- and what it is called and needs".to_owned()));
    }
    let mut front = String::new();
    loop {
        match lines.next() {
            None => return Err((1, "the first lines have no end: a line --- is missing".to_owned())),
            Some(("---", _)) => break,
            Some((line, _)) => {
                front.push_str(line);
                front.push('\n');
            }
        }
    }
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut text = (0, String::new());
    while let Some((line, number)) = lines.next() {
        if let Some(heading) = line.strip_prefix("## ") {
            flush(&mut sections, &mut text);
            sections.push(Section { line: number, heading: heading.trim(), pieces: Vec::new() });
            continue;
        }
        if line.trim().is_empty() && text.1.is_empty() {
            continue;
        }
        let Some(section) = sections.last_mut() else {
            return Err((number, "there is text before the first heading: ## …".to_owned()));
        };
        if line.starts_with('#') {
            return Err((number, format!("{line:?}: a lesson has headings of the form ## … only")));
        }
        let Some(words) = line.strip_prefix("```") else {
            if text.1.is_empty() {
                text.0 = number;
            }
            text.1.push_str(line);
            text.1.push('\n');
            continue;
        };
        let mut code = String::new();
        loop {
            match lines.next() {
                None => return Err((number, "the code has no end: a line ``` is missing".to_owned())),
                Some(("```", _)) => break,
                Some((line, _)) => {
                    code.push_str(line);
                    code.push('\n');
                }
            }
        }
        push_text(section, &mut text);
        section.pieces.push(Piece::Code(number + 1, words.trim(), code));
    }
    flush(&mut sections, &mut text);
    Ok(Document { front, sections })
}

fn flush(sections: &mut [Section<'_>], text: &mut (usize, String)) {
    if let Some(section) = sections.last_mut() {
        push_text(section, text);
    }
}

fn push_text(section: &mut Section<'_>, text: &mut (usize, String)) {
    let (line, words) = std::mem::take(text);
    if !words.trim().is_empty() {
        section.pieces.push(Piece::Text(line, words.trim().to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_front_matter_blocks_text_and_code_with_their_lines() {
        let text =
            "---\nid: a\n---\n\n## Goal\n\nWords,\nmore.\n\n## Commands\nDo:\n```sh exit=1\nfalse\n```\n";
        let document = read(text).unwrap();
        assert_eq!(document.front, "id: a\n");
        let goal =
            Section { line: 5, heading: "Goal", pieces: vec![Piece::Text(7, "Words,\nmore.".to_owned())] };
        assert_eq!(document.sections[0], goal);
        assert_eq!(document.sections[1].pieces[1], Piece::Code(13, "sh exit=1", "false\n".to_owned()));
    }

    #[test]
    fn what_has_no_such_shape_is_told_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("## Goal\n", 1),
            ("---\nid: a\n", 1),
            ("---\n---\nwords\n## Goal\n", 3),
            ("---\n---\n## Goal\n### More\n", 4),
            ("---\n---\n## Goal\n```sh\nls\n", 4),
        ] {
            assert_eq!(read(text).unwrap_err().0, line, "{text:?}");
        }
    }
}
