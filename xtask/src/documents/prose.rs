//! Finds the prose in a source file: comments, string literals, and the text of Markdown.

/// A word of prose, or a break that no phrase spans.
#[derive(Debug, PartialEq)]
pub(super) enum Token {
    Word {
        /// Lower case, without punctuation.
        text: String,
        /// From 1.
        line: usize,
    },
    Break,
}

/// A name with this many underscores is a statement, such as that of a test.
const STATEMENT: usize = 3;

/// The words of a Rust file: of comments, of string literals with a space, and of statements.
///
/// Doc examples are code, and names between backticks are no prose.
pub(super) fn of_rust(source: &str) -> Vec<Token> {
    let mut words = Words::default();
    let mut rest = source;
    let mut line = 1;
    let mut last_comment = 0;
    let mut fenced = false;
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '/' if rest.starts_with("//") => {
                let len = rest.find('\n').unwrap_or(rest.len());
                let text = rest[..len].trim_start_matches(['/', '!']);
                // Comments on lines that follow each other are one text.
                if last_comment + 1 != line {
                    words.end();
                    fenced = false;
                }
                last_comment = line;
                if text.trim_start().starts_with("```") {
                    fenced = !fenced;
                } else if !fenced {
                    words.add(text, line);
                }
                len
            }
            '/' if rest.starts_with("/*") => {
                let len = rest.find("*/").map_or(rest.len(), |end| end + 2);
                words.end();
                words.add_lines(&rest[..len], line);
                words.end();
                len
            }
            '"' => {
                let len = string_len(rest);
                words.add_string(&rest[..len], line);
                len
            }
            'r' if raw_string_len(rest).is_some() => {
                let len = raw_string_len(rest).unwrap_or(1);
                words.add_string(&rest[..len], line);
                len
            }
            '\'' => char_len(rest),
            // A whole identifier, so that its last letter does not begin a raw string.
            c if c.is_alphanumeric() || c == '_' => {
                let is_outside = |c: char| !c.is_alphanumeric() && c != '_';
                let len = rest.find(is_outside).unwrap_or(rest.len());
                if rest[..len].matches('_').count() >= STATEMENT {
                    words.end();
                    words.add(&rest[..len].replace('_', " "), line);
                    words.end();
                }
                len
            }
            c => c.len_utf8(),
        };
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    words.end();
    words.tokens
}

/// The words of a Markdown file. Blocks of Rust are read as such, other blocks as text.
pub(super) fn of_markdown(source: &str) -> Vec<Token> {
    let mut words = Words::default();
    let mut rust: Option<(usize, String)> = None;
    for (line, text) in (1..).zip(source.lines()) {
        match &mut rust {
            Some((first, block)) if text.starts_with("```") => {
                for token in of_rust(block) {
                    words.tokens.push(match token {
                        Token::Word { text, line } => Token::Word { text, line: line + *first },
                        Token::Break => Token::Break,
                    });
                }
                rust = None;
            }
            Some((_, block)) => {
                block.push_str(text);
                block.push('\n');
            }
            None if text.starts_with("```rust") => rust = Some((line, String::new())),
            None if text.trim().is_empty() || text.starts_with("```") => words.end(),
            None => words.add(text, line),
        }
    }
    words.end();
    words.tokens
}

/// The words of the comments of a script or of TOML.
pub(super) fn of_script(source: &str) -> Vec<Token> {
    let mut words = Words::default();
    for (line, text) in (1..).zip(source.lines()) {
        match text.split_once('#') {
            Some((before, comment)) if before.is_empty() || before.ends_with(' ') => {
                words.add(comment, line);
            }
            _ => words.end(),
        }
    }
    words.end();
    words.tokens
}

/// The length of the string literal at the start of `text`, quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the raw string literal at the start of `text`, if there is one.
fn raw_string_len(text: &str) -> Option<usize> {
    let hashes = text[1..].chars().take_while(|&c| c == '#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let len = body.find(&end)?;
    Some(1 + hashes + 1 + len + end.len())
}

/// The length of the character literal or the lifetime at the start of `text`.
fn char_len(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            text[2..].char_indices().skip(1).find(|&(_, c)| c == '\'').map(|c| c.0 + 3)
        }
        Some(_) => chars.next().filter(|&(_, c)| c == '\'').map(|(at, _)| at + 1),
        None => None,
    }
    .unwrap_or(1)
}

#[derive(Default)]
struct Words {
    tokens: Vec<Token>,
    /// Between backticks, which may span lines.
    quoted: bool,
}

impl Words {
    fn end(&mut self) {
        self.quoted = false;
        self.tokens.push(Token::Break);
    }

    fn add_lines(&mut self, text: &str, first: usize) {
        for (line, text) in (first..).zip(text.lines()) {
            self.add(text, line);
        }
    }

    /// A literal without a space is a name.
    fn add_string(&mut self, literal: &str, first: usize) {
        if literal.contains(' ') {
            self.end();
            self.add_lines(&literal.replace("\\n", "  "), first);
            self.end();
        }
    }

    fn add(&mut self, text: &str, line: usize) {
        let mut word = String::new();
        for c in text.chars().chain([' ']) {
            if c == '`' {
                self.quoted = !self.quoted;
            } else if (c.is_alphanumeric() || matches!(c, '_' | '\'')) && !self.quoted {
                word.extend(c.to_lowercase());
                continue;
            }
            if !word.is_empty() {
                self.tokens.push(Token::Word { text: std::mem::take(&mut word), line });
            }
            if !c.is_whitespace() && !self.quoted {
                self.tokens.push(Token::Break);
            }
        }
    }
}
