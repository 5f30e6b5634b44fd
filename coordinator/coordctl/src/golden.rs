//! Texts that people and scripts rely on, kept as files: a change of one is seen in the review of the file.

use std::fs;
use std::path::Path;

/// Compares a text with the file of that name in `golden/`. Where they differ, the new text is left beside it.
pub fn compare(name: &str, text: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let text = text.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>();
    let known = fs::read_to_string(folder.join(name)).unwrap_or_default();
    if known == text {
        return;
    }
    let line = known.lines().zip(text.lines()).take_while(|(a, b)| a == b).count();
    let (before, now) = (known.lines().nth(line).unwrap_or("(end)"), text.lines().nth(line).unwrap_or("(end)"));
    let written = fs::write(folder.join(format!("{name}.new")), &text);
    panic!(
        "golden/{name}, line {}: was {before:?}, is {now:?} ({written:?}). If that is meant, a line of CHANGELOG.md says so, and: \
         mv coordinator/coordctl/golden/{name}.new coordinator/coordctl/golden/{name}",
        line + 1
    );
}

/// Leaves out every section that begins with this line, up to the next empty line, but the first.
pub fn without_repeats(text: &str, section: &str) -> String {
    let (mut seen, mut skipping, mut out) = (false, false, String::new());
    for line in text.lines() {
        if line == section {
            skipping = seen;
            seen = true;
        } else if line.starts_with("### ") || (skipping && !line.is_empty() && !line.starts_with(' ')) {
            skipping = false;
        }
        if !skipping {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
