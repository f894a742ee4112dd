//! The language is plain: idioms for which the field has a word stay replaced by it.

use super::files::{self, Kind};
use super::prose::{self, Token};

/// What is not written, and what is in its place. Words are joined by `_`, forms of a word by `|`.
const REPLACED: [(&str, &str); 21] = [
    ("is|are|was|were_over", "has completed, completes; of a quantity: above"),
    ("under_way", "in flight, in progress"),
    ("beside", "concurrently with, while; of a place: next to"),
    ("behind", "after, past, beyond"),
    ("tell|tells|told|telling", "report, say, show; distinguish"),
    ("who|whom|whoever", "the caller, a thread, a process, a user"),
    ("somebody|nobody|anybody|everybody", "the caller, a thread, no other process"),
    ("of_its|their|our|your_own", "its own"),
    ("of_ours|theirs|mine|yours", "our, their"),
    ("speak|speaks|spoke_for", "is authoritative for"),
    ("reading_alone", "read-only"),
    ("so_many", "that many, as many as"),
    ("so_long", "that long, as long as"),
    ("give|gives|gave|giving_way", "yields"),
    ("the_turn_away", "yields"),
    ("room", "headroom, capacity, space"),
    ("taken|takes|took_in", "reaped, reaps"),
    ("decay|decays|decayed|decaying", "is corrupted, suffers bit rot"),
    ("gone_since", "deleted, retired, released"),
    ("given_up", "deleted, retired, released"),
    ("meanwhile", "in the meantime, concurrently; or nothing"),
];

/// Where one of [`REPLACED`] is written: its index and the line.
fn found(tokens: &[Token]) -> Vec<(usize, usize)> {
    let phrases: Vec<Vec<Vec<&str>>> = REPLACED
        .iter()
        .map(|(phrase, _)| phrase.split('_').map(|forms| forms.split('|').collect()).collect())
        .collect();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let &Token::Word { line, .. } = token else { continue };
        for (index, phrase) in phrases.iter().enumerate() {
            let is_there = phrase.iter().zip(&tokens[at..]).all(|(forms, token)| match token {
                Token::Word { text, .. } => forms.contains(&text.as_str()),
                Token::Break => false,
            });
            if is_there && phrase.len() <= tokens.len() - at {
                found.push((index, line));
            }
        }
    }
    found
}

fn tokens(kind: Kind, text: &str) -> Vec<Token> {
    match kind {
        Kind::Rust => prose::of_rust(text),
        Kind::Markdown => prose::of_markdown(text),
        Kind::Script => prose::of_script(text),
    }
}

#[test]
fn no_text_has_an_idiom_that_was_replaced() {
    let mut all = String::new();
    let own = files::root().join(file!());
    for (path, kind, text) in files::all().into_iter().filter(|(path, ..)| *path != own) {
        for (index, line) in found(&tokens(kind, &text)) {
            let (phrase, replacement) = REPLACED[index];
            let path = path.strip_prefix(files::root()).unwrap().display();
            let phrase = phrase.replace('_', " ");
            all += &format!("{path}:{line}: not \"{phrase}\" but: {replacement}\n");
        }
    }
    assert!(all.is_empty(), "{} idioms:\n{all}", all.lines().count());
}

fn phrases(kind: Kind, text: &str) -> Vec<(&'static str, usize)> {
    found(&tokens(kind, text)).into_iter().map(|(index, line)| (REPLACED[index].0, line)).collect()
}

#[test]
fn idioms_are_found_in_comments_and_messages() {
    let source = r##"
        //! An op that is
        //! over. `is over` and is_over are names.
        fn it_goes_on_under_way() {}
        fn beside(c: char) -> bool { // under way
            let r = r#"a \ "quoted" message tells"#;
            /* for nobody */
            c == '"' || matches!(c, 'a'..='z' | '\'') && f::<'static>("beside") // behind
        }
        /// ```
        /// let room = "room";
        /// ```
        /// It is. Over there. Is it so? Many times, so
        const A: &str = "many idioms, so many \"idioms\"";
    "##;
    let expected = [
        ("is|are|was|were_over", 2),
        ("under_way", 4),
        ("under_way", 5),
        ("tell|tells|told|telling", 6),
        ("somebody|nobody|anybody|everybody", 7),
        ("behind", 8),
        ("so_many", 14),
    ];
    assert_eq!(phrases(Kind::Rust, source), expected);
}

#[test]
fn idioms_are_found_in_markdown_and_scripts() {
    let markdown = "# Under\n\nway under\nway, `under way`\n\n\
        ```rust\nlet room = 1; // given up\n```\n\
        ```text\nbehind\n```\n| who | it |\n";
    let expected = [("under_way", 3), ("given_up", 7), ("behind", 10), ("who|whom|whoever", 12)];
    assert_eq!(phrases(Kind::Markdown, markdown), expected);
    let script = "beside # gone since\nx=1 # tells\n#room\n";
    let expected = [("gone_since", 1), ("tell|tells|told|telling", 2), ("room", 3)];
    assert_eq!(phrases(Kind::Script, script), expected);
}
