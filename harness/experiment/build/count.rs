//! Counts lines of code: neither blank, nor comment, nor test.
//!
//! It reads formatted Rust and no grammar: an item under `#[cfg(test)]` ends with the first line that
//! closes it at its own indentation, and a block comment is one that starts its line.

/// Lines of code of a file.
pub fn lines(text: &str) -> u32 {
    let mut count = 0;
    let mut in_comment = false;
    let mut skipped: Option<Skip> = None;
    for line in text.lines() {
        let code = line.trim();
        if in_comment {
            in_comment = !code.contains("*/");
            continue;
        }
        if code.starts_with("/*") {
            in_comment = !code.contains("*/");
            continue;
        }
        if code.is_empty() || code.starts_with("//") {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        match &mut skipped {
            Some(skip) => {
                if skip.ends_with(code, indent) {
                    skipped = None;
                }
            }
            None if code.starts_with("#[cfg(test)]") => {
                skipped = Some(Skip {
                    indent,
                    inside: false,
                });
            }
            None => count += 1,
        }
    }
    count
}

/// An item that is left out.
struct Skip {
    indent: usize,
    /// Its first line is over.
    inside: bool,
}

impl Skip {
    fn ends_with(&mut self, code: &str, indent: usize) -> bool {
        if indent != self.indent || (!self.inside && code.starts_with("#[")) {
            return false;
        }
        let first = !std::mem::replace(&mut self.inside, true);
        code.starts_with('}') || (first && (code.ends_with(';') || code.ends_with('}')))
    }
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn blank_lines_and_comments_are_no_code() {
        let text = "//! About.\n\n/* a\n   b */\nuse a;\n    // why\nfn f() {} // end\n";
        assert_eq!(lines(text), 2);
    }

    #[test]
    fn tests_are_left_out_and_what_follows_them_is_not() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\nfn c() {}\n";
        assert_eq!(lines(text), 2);
        assert_eq!(lines("#[cfg(test)]\nmod tests;\nfn a() {}\n"), 1);
        assert_eq!(
            lines("#[cfg(test)]\n#[path = \"x\"]\nmod tests;\nfn a() {}\n"),
            1
        );
    }
}
