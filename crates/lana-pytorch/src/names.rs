//! What Python can and cannot call things.
//!
//! The names of a network come from files, some of them strangers': whatever is no plain name reaches the text quoted only.

/// Words of the language.
const KEYWORDS: &[&str] = &[
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "case", "class", "continue",
    "def", "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is",
    "lambda", "match", "nonlocal", "not", "or", "pass", "raise", "return", "try", "type", "while", "with",
    "yield",
];

/// What modules have already. Names that begin with an underscore are left to PyTorch as a whole.
const MEMBERS: &[&str] = &[
    "T_destination",
    "add_module",
    "apply",
    "bfloat16",
    "buffers",
    "call_super_init",
    "children",
    "compile",
    "cpu",
    "cuda",
    "double",
    "dump_patches",
    "eval",
    "extra_repr",
    "float",
    "forward",
    "get_buffer",
    "get_extra_state",
    "get_parameter",
    "get_submodule",
    "half",
    "ipu",
    "load_state_dict",
    "modules",
    "mtia",
    "named_buffers",
    "named_children",
    "named_modules",
    "named_parameters",
    "parameters",
    "register_backward_hook",
    "register_buffer",
    "register_forward_hook",
    "register_forward_pre_hook",
    "register_full_backward_hook",
    "register_full_backward_pre_hook",
    "register_load_state_dict_post_hook",
    "register_load_state_dict_pre_hook",
    "register_module",
    "register_parameter",
    "register_state_dict_post_hook",
    "register_state_dict_pre_hook",
    "requires_grad_",
    "set_extra_state",
    "set_submodule",
    "share_memory",
    "state_dict",
    "to",
    "to_empty",
    "train",
    "training",
    "type",
    "xpu",
    "zero_grad",
];

/// What `nn.ModuleDict` has beside that.
const DICT_MEMBERS: &[&str] = &["clear", "items", "keys", "pop", "update", "values"];

/// Whether `nn.ModuleDict` refuses the key `name`.
pub(crate) fn is_no_key(name: &str) -> bool {
    is_taken(name) || DICT_MEMBERS.contains(&name)
}

/// Whether Python reads `name` as a name.
pub(crate) fn is_identifier(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !KEYWORDS.contains(&name)
}

/// Whether modules have an attribute `name` of their own.
pub(crate) fn is_taken(name: &str) -> bool {
    name.is_empty() || name.starts_with('_') || MEMBERS.contains(&name)
}

/// Whether a submodule may be the attribute `name`.
pub(crate) fn is_attribute(name: &str) -> bool {
    is_identifier(name) && !is_taken(name)
}

/// The position that `name` is, as `nn.Sequential` counts.
pub(crate) fn position(name: &str) -> Option<usize> {
    name.parse().ok().filter(|at: &usize| at.to_string() == name)
}

/// The attribute nearest to `name`.
pub(crate) fn attribute(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    let mut name = name.trim_matches('_').to_string();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert_str(0, "part_");
    }
    while !is_attribute(&name) {
        match name.is_empty() {
            true => name.push_str("part"),
            false => name.push('_'),
        }
    }
    name
}

/// The class for the modules at `path`: `layer1.0` becomes `Layer1_0`.
pub(crate) fn class(path: &str) -> String {
    let words = path.split('.').map(|word| {
        let word = attribute(word);
        let word = word.strip_prefix("part_").filter(|_| path.contains('.')).unwrap_or(&word);
        let capital: String = word.chars().take(1).flat_map(char::to_uppercase).collect();
        capital + word.get(1..).unwrap_or("")
    });
    let name = words.collect::<Vec<_>>().join("_");
    match name.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("Part_{name}"),
        false => name,
    }
}

/// `text` as a string of Python.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// `text` as it may stand in a string of Python, or behind a `#`.
pub(crate) fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        // Python ends lines at more than the control characters, but escapes any.
        c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => format!("\\U{:08x}", c as u32),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// A number as Python writes it. (The shortest digits that give it back; Rust and Python agree on those.)
pub(crate) fn number(value: impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

/// One number if both are the same, otherwise both.
pub(crate) fn pair([rows, columns]: [usize; 2]) -> String {
    if rows == columns { rows.to_string() } else { format!("({rows}, {columns})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_attributes() {
        for name in ["conv1", "layer", "Q", "bn_2"] {
            assert!(is_attribute(name), "{name}");
            assert_eq!(attribute(name), name);
        }
        for (name, near) in [
            ("", "part"),
            ("0", "part_0"),
            ("train", "train_"),
            ("lambda", "lambda_"),
            ("_conv", "conv"),
            ("/a/b", "a_b"),
            ("größe", "gr__e"),
            ("x = 1\nimport os", "x___1_import_os"),
        ] {
            assert!(!is_attribute(name), "{name}");
            assert_eq!(attribute(name), near);
        }
    }

    #[test]
    fn classes_are_named_after_their_place() {
        for (path, name) in [
            ("layer1.0", "Layer1_0"),
            ("blocks.0.1.se", "Blocks_0_1_Se"),
            ("0", "Part_0"),
            ("0.1", "Part_0_1"),
        ] {
            assert_eq!(class(path), name);
        }
    }

    #[test]
    fn positions_are_written_one_way() {
        assert_eq!(position("12"), Some(12));
        for other in ["", "01", "+1", "a", "99999999999999999999999"] {
            assert_eq!(position(other), None, "{other}");
        }
    }

    #[test]
    fn nothing_leaves_its_quotes() {
        assert_eq!(quoted("a\"b\\c\nd"), "\"a\\\"b\\\\c\\U0000000ad\"");
    }

    #[test]
    fn numbers_are_python_numbers() {
        assert_eq!(number(1e-5f64), "1e-5");
        assert_eq!(number(0.1f32), "0.1");
        assert_eq!(pair([3, 3]), "3");
        assert_eq!(pair([3, 5]), "(3, 5)");
    }
}
