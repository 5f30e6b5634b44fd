//! Patterns of what a backup takes, under attack (see `tests/tests/fuzz.rs`). They come from policies, which operators write.

use coord_agent::scan::selection::{Selection, Standing};
use coord_archive::rules::Rules;
use fleet_tests::fuzz::attack;

/// Paths that every selection is asked about.
const PATHS: [&[u8]; 8] = [b"", b"a", b"a/b", b"srv/data/x.o", b"srv", b"\xff\n", b".cache/x", b"a/../b"];

#[test]
fn selection() {
    let seeds: Vec<Vec<u8>> = vec![
        b"/srv\n*.o\n!keep.o\n/srv/**/tmp/\n".to_vec(),
        b"\n**\n!**/keep\n[a-c]?{x,y}\n".to_vec(),
        b"/a/b/../c\n/\n\\!x\n!\n".to_vec(),
    ];
    attack("selection", seeds, &|input| {
        let text = String::from_utf8_lossy(input);
        let mut lines = text.lines().map(str::to_owned);
        let sources: Vec<Vec<u8>> = lines.next().iter().map(|line| line.as_bytes().to_vec()).collect();
        let patterns: Vec<String> = lines.take(20).collect();
        let rules = Rules { if_present: patterns.iter().take(1).cloned().collect(), ..Rules::default() };
        let selection = match Selection::new(&sources, &patterns) {
            Ok(selection) => selection,
            Err(error) => return error.to_string().chars().take(30).collect(),
        };
        let mut said = String::new();
        for path in PATHS.iter().copied().chain(patterns.iter().map(String::as_bytes)) {
            let (covered, standing) = (selection.covers(path, true), selection.standing(path));
            assert!(!covered || matches!(standing, Standing::Source | Standing::Below));
            if selection.is_source(path) {
                assert!(covered && selection.left_out_by(path, true).is_none(), "a source is never left out");
            }
            said += &format!("{covered} {standing:?} {:?};", selection.matched_by(path, false).is_some());
        }
        format!("{said} {}", selection.with_rules(rules).is_ok())
    });
}
